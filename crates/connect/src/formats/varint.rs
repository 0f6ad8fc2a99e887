//! Whole numbers of as many bytes as they need, as Avro and Protobuf write them.

/// Writes seven bits a byte, the lowest first.
pub(crate) fn write_varint(value: u64, to: &mut Vec<u8>) {
    let mut rest = value;
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}
