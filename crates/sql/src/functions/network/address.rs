//! An IP address with the length of its network's prefix: the values of INET and CIDR.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::Error;
use crate::functions::marks::Mark;
use crate::functions::read_text::invalid_text;
use crate::sqlstate;

/// An address and its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) is_v6: bool,
    /// The address, in the last 32 or all 128 bits.
    pub(super) bits: u128,
    /// The bits of the prefix.
    pub(super) length: u8,
}

const EXPECTED: &str = "an address such as 192.168.0.1, 192.168.0.0/24 or 2001:db8::/32";

impl Address {
    /// Reads an INET.
    pub(super) fn inet(text: &str) -> Result<Address, Error> {
        let found = match text.contains(':') {
            true => v6(text),
            false => v4_inet(text),
        };
        found.ok_or_else(|| invalid_text(Mark::Inet, text, EXPECTED))
    }

    /// Reads a CIDR: no bit right of the prefix may be set.
    pub(super) fn cidr(text: &str) -> Result<Address, Error> {
        let found = match text.contains(':') {
            true => v6(text),
            false => v4_cidr(text),
        };
        let found = found.ok_or_else(|| invalid_text(Mark::Cidr, text, EXPECTED))?;
        if found.bits != found.network().bits {
            let error = Error::invalid(format!("invalid cidr value: \"{text}\""));
            return Err(error
                .hint("The value has bits set to the right of its mask. Use INET for addresses of hosts.")
                .code(sqlstate::INVALID_TEXT_REPRESENTATION));
        }
        Ok(found)
    }

    /// Returns the number of bits of an address of this family.
    pub(super) fn width(self) -> u8 {
        if self.is_v6 { 128 } else { 32 }
    }

    /// Returns an address of all ones.
    pub(super) fn ones(self) -> u128 {
        if self.is_v6 { u128::MAX } else { u128::from(u32::MAX) }
    }

    /// Returns ones for the first `length` bits.
    fn mask_of(self, length: u8) -> u128 {
        let zeros = u32::from(self.width().saturating_sub(length));
        self.ones() & u128::MAX.checked_shl(zeros).unwrap_or(0)
    }

    /// Returns ones for the bits of the prefix.
    pub(super) fn mask(self) -> u128 {
        self.mask_of(self.length)
    }

    /// Returns the address without the bits right of its prefix.
    pub(super) fn network(self) -> Address {
        Address { bits: self.bits & self.mask(), ..self }
    }

    /// Returns this address with another prefix: the address of a host.
    pub(super) fn alone(self) -> Address {
        Address { length: self.width(), ..self }
    }

    /// True if the first `length` bits of both addresses are the same.
    pub(super) fn shares(self, other: Address, length: u8) -> bool {
        let mask = self.mask_of(length);
        self.is_v6 == other.is_v6 && self.bits & mask == other.bits & mask
    }

    /// Returns the text of the address without its prefix.
    pub(super) fn host(self) -> String {
        let Ok(v4) = u32::try_from(self.bits & u128::from(u32::MAX)) else { return String::new() };
        if !self.is_v6 {
            return Ipv4Addr::from(v4).to_string();
        }
        // As in PostgreSQL, an address of zeros and from 17 to 32 bits has the form of IPv4.
        match self.bits {
            bits @ 0x1_0000..=0xffff_ffff => format!("::{}", Ipv4Addr::from(bits as u32)),
            bits => Ipv6Addr::from(bits).to_string(),
        }
    }

    /// Returns the text with the length of the prefix.
    pub(super) fn with_length(self) -> String {
        format!("{}/{}", self.host(), self.length)
    }

    /// Returns the canonical text of the INET.
    pub(super) fn to_inet(self) -> String {
        if self.length == self.width() { self.host() } else { self.with_length() }
    }

    /// Returns a text that has the order of INET: by family, network, length of the prefix, address.
    pub(super) fn key(self) -> String {
        let (network, length, bits) = (self.network().bits, self.length, self.bits);
        match self.is_v6 {
            true => format!("6{network:032x}{length:02x}{bits:032x}"),
            false => format!("4{network:08x}{length:02x}{bits:08x}"),
        }
    }

    /// Reads a text of [`Address::key`].
    pub(super) fn of_key(key: &str) -> Option<Address> {
        let is_v6 = key.starts_with('6');
        let digits = if is_v6 { 32 } else { 8 };
        let length = u8::from_str_radix(key.get(1 + digits..3 + digits)?, 16).ok()?;
        let bits = u128::from_str_radix(key.get(3 + digits..)?, 16).ok()?;
        Some(Address { is_v6, bits, length })
    }

    /// Returns the text of a CIDR without the parts that its prefix doesn't reach: `10.1/16`.
    pub(super) fn abbreviated(self) -> String {
        let network = self.network();
        let start = match self.is_v6 {
            true => abbreviated_v6(network),
            false => {
                let octets = (network.bits as u32).to_be_bytes();
                let count = usize::from(self.length.div_ceil(8)).max(1);
                let octets: Vec<String> = octets.iter().take(count).map(u8::to_string).collect();
                octets.join(".")
            }
        };
        format!("{start}/{}", self.length)
    }
}

/// Returns the words of a network that its prefix reaches. The longest run of zeros becomes `::`.
fn abbreviated_v6(network: Address) -> String {
    if network.length == 0 {
        return "::".into();
    }
    let all: [u16; 8] = std::array::from_fn(|at| (network.bits >> (112 - 16 * at)) as u16);
    let count = usize::from(network.length.div_ceil(16)).max(2);
    let words = &all[..count];
    let (mut start, mut zeros) = (0, 0);
    let mut at = 0;
    while at < count {
        let run = words[at..].iter().take_while(|word| **word == 0).count();
        if run > zeros {
            (start, zeros) = (at, run);
        }
        at += run.max(1);
    }
    let is_v4 = start == 0
        && zeros != count
        && (zeros == 6
            || (zeros == 5 && all[5] == 0xffff)
            || (zeros == 7 && all[7] >> 8 != 0 && all[7] & 0xff != 1));
    let mut out = String::new();
    for (place, word) in words.iter().enumerate() {
        if zeros > 0 && (start..start + zeros).contains(&place) {
            out.push_str(if place == start { ":" } else { "" });
            out.push_str(if place == count - 1 { ":" } else { "" });
        } else if is_v4 && place > 5 {
            out.push(if place == 6 { ':' } else { '.' });
            out.push_str(&(word >> 8).to_string());
            if place != 7 || network.length > 120 {
                out.push_str(&format!(".{}", word & 0xff));
            }
        } else {
            out.push_str(if out.is_empty() { "" } else { ":" });
            out.push_str(&format!("{word:x}"));
        }
    }
    out
}

/// Reads the digits of a prefix.
fn length(text: &str, most: u8) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length: u32 = is_number.then(|| text.parse().ok()).flatten()?;
    u8::try_from(length).ok().filter(|length| *length <= most)
}

/// Splits a text before its prefix.
fn parts(text: &str, most: u8) -> Option<(&str, Option<u8>)> {
    match text.split_once('/') {
        Some((address, prefix)) => Some((address, Some(length(prefix, most)?))),
        None => Some((text, None)),
    }
}

fn v6(text: &str) -> Option<Address> {
    let (address, prefix) = parts(text, 128)?;
    let bits = u128::from(address.parse::<Ipv6Addr>().ok()?);
    Some(Address { is_v6: true, bits, length: prefix.unwrap_or(128) })
}

/// Reads up to four numbers between points.
fn octets(text: &str) -> Option<Vec<u8>> {
    let octet = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.trim_start_matches('0')).and_then(|digits| match digits {
            "" => Some(0),
            digits => digits.parse::<u8>().ok(),
        })
    };
    let octets: Vec<u8> = text.split('.').map(octet).collect::<Option<_>>()?;
    (octets.len() <= 4).then_some(octets)
}

fn v4(octets: &[u8], length: u8) -> Address {
    let all: [u8; 4] = std::array::from_fn(|at| octets.get(at).copied().unwrap_or(0));
    Address { is_v6: false, bits: u32::from_be_bytes(all).into(), length }
}

/// Reads an INET: the octets that its prefix reaches may not be left out.
fn v4_inet(text: &str) -> Option<Address> {
    let (address, prefix) = parts(text, 32)?;
    let octets = octets(address)?;
    let length = match prefix {
        Some(length) => length,
        None if octets.len() == 4 => 32,
        None => return None,
    };
    (usize::from(length / 8) <= octets.len()).then(|| v4(&octets, length))
}

/// Reads a CIDR. Without a prefix, the class of the network determines it.
fn v4_cidr(text: &str) -> Option<Address> {
    let (address, prefix) = parts(text, 32)?;
    let octets = octets(address)?;
    let first = octets.first().copied()?;
    let length = prefix.unwrap_or_else(|| {
        let class = match first {
            240.. => 32,
            224.. => 8,
            192.. => 24,
            128.. => 16,
            _ => 8,
        };
        let length = class.max(octets.len() as u8 * 8);
        if length == 8 && first == 224 { 4 } else { length }
    });
    Some(v4(&octets, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inets_are_read() {
        for (text, expected) in [
            ("192.168.1.5", "192.168.1.5"),
            ("192.168.1.5/32", "192.168.1.5"),
            ("192.168.1/24", "192.168.1.0/24"),
            ("010.001.0.0/8", "10.1.0.0/8"),
            ("0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("::", "::"),
            ("::2", "::2"),
            ("::1:2", "::0.1.0.2"),
            ("::ffff:fff0:1", "::ffff:255.240.0.1"),
            ("2001:DB8:0:0:1::/64", "2001:db8:0:0:1::/64"),
        ] {
            assert_eq!(Address::inet(text).unwrap().to_inet(), expected, "{text}");
        }
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/-1",
            "10/16",
            ":::",
            "1::/129",
        ] {
            assert!(Address::inet(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_read() {
        for (text, expected, short) in [
            ("10.1", "10.1.0.0/16", "10.1/16"),
            ("192.168", "192.168.0.0/24", "192.168.0/24"),
            ("224", "224.0.0.0/4", "224/4"),
            ("0/0", "0.0.0.0/0", "0/0"),
            ("10.1.2.3", "10.1.2.3/32", "10.1.2.3/32"),
            ("128.0.0.0/1", "128.0.0.0/1", "128/1"),
            ("2001:db8::/32", "2001:db8::/32", "2001:db8/32"),
            ("::/0", "::/0", "::/0"),
            ("::/16", "::/16", "::/16"),
            ("2001:db8:0:0:8::/80", "2001:db8:0:0:8::/80", "2001:db8::8/80"),
        ] {
            let read = Address::cidr(text).unwrap();
            assert_eq!((read.with_length(), read.abbreviated()), (expected.into(), short.into()), "{text}");
        }
        assert!(Address::cidr("192.168.1.5/24").is_err());
    }

    #[test]
    fn keys_have_the_order_of_addresses() {
        let ordered = [
            "9.0.0.0/8",
            "10.0.0.0/8",
            "10.200.0.0/8",
            "10.1.0.0/16",
            "10.1.0.0",
            "10.2.0.0",
            "::",
            "::1",
            "1::/16",
        ];
        let keys: Vec<String> = ordered.iter().map(|text| Address::inet(text).unwrap().key()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        for (key, text) in keys.iter().zip(ordered) {
            assert_eq!(Address::of_key(key).unwrap(), Address::inet(text).unwrap());
        }
    }
}
