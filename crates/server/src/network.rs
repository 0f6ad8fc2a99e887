//! The binary forms of network addresses, whose values are text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};

use crate::oid::Kind;
use crate::rows::Writer;
use crate::text;

/// The numbers of the two families in binary forms.
const V4: u8 = 2;
const V6: u8 = 3;

/// Returns a writer of the binary form: of INET and CIDR the family, the length of the prefix, a flag for CIDR, the number
/// of bytes and the bytes; of hardware addresses the bytes.
pub(crate) fn writer<'a>(kind: &Kind, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    let kind = kind.clone();
    let text = text::writer(&kind, array)?;
    Ok(text::reread(text, move |written, out| match kind {
        Kind::Inet | Kind::Cidr => put_address(written, kind == Kind::Cidr, out),
        _ => {
            let octets = written.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok());
            octets.for_each(|octet| out.put_u8(octet));
        }
    }))
}

fn put_address(text: &str, is_cidr: bool, out: &mut BytesMut) {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    // The engine checks values when they are written.
    let Ok(address) = address.parse::<IpAddr>() else { return };
    let (family, width) = if address.is_ipv4() { (V4, 32) } else { (V6, 128) };
    out.put_slice(&[family, length.parse().unwrap_or(width), u8::from(is_cidr), width / 8]);
    match address {
        IpAddr::V4(v4) => out.put_slice(&v4.octets()),
        IpAddr::V6(v6) => out.put_slice(&v6.octets()),
    }
}

/// Returns the text of a binary form.
pub(crate) fn read(kind: &Kind, bytes: &[u8]) -> Option<String> {
    match (kind, bytes) {
        (Kind::Inet | Kind::Cidr, [V4, length @ 0..=32, _, 4, rest @ ..]) => {
            Some(format!("{}/{length}", Ipv4Addr::from(<[u8; 4]>::try_from(rest).ok()?)))
        }
        (Kind::Inet | Kind::Cidr, [V6, length @ 0..=128, _, 16, rest @ ..]) => {
            Some(format!("{}/{length}", Ipv6Addr::from(<[u8; 16]>::try_from(rest).ok()?)))
        }
        (Kind::Macaddr, [_, _, _, _, _, _]) | (Kind::Macaddr8, [_, _, _, _, _, _, _, _]) => {
            Some(bytes.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn binary_forms_are_postgresql_s() {
        let check = |kind: Kind, given: &str, expected: &[u8], text: &str| {
            let array: ArrayRef = Arc::new(StringArray::from(vec![given]));
            let mut out = BytesMut::new();
            writer(&kind, &array).unwrap()(0, &mut out);
            assert_eq!(&out[..], expected, "{given}");
            assert_eq!(read(&kind, &out).as_deref(), Some(text));
        };
        check(Kind::Inet, "10.1.2.3", &[2, 32, 0, 4, 10, 1, 2, 3], "10.1.2.3/32");
        check(Kind::Cidr, "10.0.0.0/8", &[2, 8, 1, 4, 10, 0, 0, 0], "10.0.0.0/8");
        let mut v6 = vec![3, 128, 0, 16];
        v6.extend(1_u128.to_be_bytes());
        check(Kind::Inet, "::1", &v6, "::1/128");
        check(Kind::Macaddr, "08:00:2b:01:02:03", &[8, 0, 0x2b, 1, 2, 3], "08:00:2b:01:02:03");
        for wrong in
            [&[2, 33, 0, 4, 1, 2, 3, 4][..], &[2, 32, 0, 4, 1, 2, 3], &[4, 32, 0, 4, 1, 2, 3, 4], &[]]
        {
            assert_eq!(read(&Kind::Inet, wrong), None);
        }
    }
}
