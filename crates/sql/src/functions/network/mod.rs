//! Network addresses, stored as text: INET, CIDR, MACADDR and MACADDR8, with PostgreSQL's functions and operators.
//!
//! The text of each is canonical: the one that PostgreSQL writes. So equal values have equal texts. The order of INET and
//! CIDR isn't that of their texts; `inet_key` returns texts that have it.

mod address;
mod hardware;
pub(crate) mod operators;

use self::address::Address;
use super::marks::Mark;
use super::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::error::{Error, Result};
use crate::sqlstate;
use arrow::datatypes::DataType;

const INET: Param = Param::Value(Mark::Inet);

/// Returns the canonical text of a value of one of these types.
pub(super) fn canonical(mark: Mark, text: &str) -> Result<String> {
    match mark {
        Mark::Cidr => Ok(Address::cidr(text)?.with_length()),
        Mark::Macaddr | Mark::Macaddr8 => Ok(hardware::spelled(&bytes(mark, text)?)),
        _ => Ok(Address::inet(text)?.to_inet()),
    }
}

fn bytes(mark: Mark, text: &str) -> Result<Vec<u8>> {
    if mark == Mark::Macaddr { hardware::macaddr(text) } else { hardware::macaddr8(text) }
}

/// Returns the function that a call means if its first argument has a type: some names have several.
pub(crate) fn overload(name: &str, mark: Mark) -> Option<&'static str> {
    Some(match (name, mark) {
        ("abbrev", Mark::Cidr) => "abbrev_cidr",
        ("set_masklen", Mark::Cidr) => "set_masklen_cidr",
        ("text", Mark::Inet) => "inet_text",
        ("trunc", Mark::Macaddr) => "trunc_macaddr",
        ("trunc", Mark::Macaddr8) => "trunc_macaddr8",
        ("read_cidr", Mark::Inet) => "cidr_of_inet",
        ("read_macaddr", Mark::Macaddr8) => "macaddr_of_macaddr8",
        _ => return None,
    })
}

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    addresses(add);
    parts(add);
    operations(add);
    hardware_functions(add);
}

/// Functions from an address to an address.
fn addresses(add: &mut dyn FnMut(MarkedFunction)) {
    let mut inet = |name, kernel| {
        add(MarkedFunction::new(name, &[INET], Returns::Marked(Mark::Inet), Kernel::Text(kernel)));
    };
    inet("broadcast", |all, row| {
        each(all, row, |found| {
            Address { bits: found.bits | (!found.mask() & found.ones()), ..found }.to_inet()
        })
    });
    inet("netmask", |all, row| {
        each(all, row, |found| Address { bits: found.mask(), ..found.alone() }.to_inet())
    });
    inet("hostmask", |all, row| {
        each(all, row, |found| Address { bits: !found.mask() & found.ones(), ..found.alone() }.to_inet())
    });
    inet("inet_not", |all, row| {
        each(all, row, |found| Address { bits: !found.bits & found.ones(), ..found }.to_inet())
    });
    inet("inet_of_cidr", |all, row| each(all, row, Address::to_inet));
    inet("inet_of_key", |all, row| Ok(of_key(all, row)?.map(Address::to_inet)));
    let mut cidr = |name, kernel| {
        add(MarkedFunction::new(name, &[INET], Returns::Marked(Mark::Cidr), Kernel::Text(kernel)));
    };
    cidr("network", |all, row| each(all, row, |found| found.network().with_length()));
    cidr("cidr_of_inet", |all, row| each(all, row, |found| found.network().with_length()));
    cidr("cidr_of_key", |all, row| Ok(of_key(all, row)?.map(Address::with_length)));
    let two = &[INET, INET];
    add(MarkedFunction::new("inet_merge", two, Returns::Marked(Mark::Cidr), Kernel::Text(merge)));
    let with_length = &[INET, Param::Int];
    add(MarkedFunction::new(
        "set_masklen",
        with_length,
        Returns::Marked(Mark::Inet),
        Kernel::Text(|all, row| Ok(with_masklen(all, row)?.map(Address::to_inet))),
    ));
    add(MarkedFunction::new(
        "set_masklen_cidr",
        with_length,
        Returns::Marked(Mark::Cidr),
        Kernel::Text(|all, row| Ok(with_masklen(all, row)?.map(|found| found.network().with_length()))),
    ));
}

/// Functions from an address to another type.
fn parts(add: &mut dyn FnMut(MarkedFunction)) {
    let mut text = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Type(DataType::Utf8View), Kernel::Text(kernel)));
    };
    text("abbrev", &[INET], |all, row| each(all, row, Address::to_inet));
    text("abbrev_cidr", &[INET], |all, row| each(all, row, Address::abbreviated));
    text("host", &[INET], |all, row| each(all, row, Address::host));
    text("inet_text", &[INET], |all, row| each(all, row, Address::with_length));
    text("inet_key", &[INET], |all, row| each(all, row, Address::key));
    text("text", &[Param::Text], |all, row| Ok(all.text(0, row).map(str::to_string)));
    let mut number = |name, kernel| {
        add(MarkedFunction::new(name, &[INET], Returns::Type(DataType::Int32), Kernel::Int(kernel)));
    };
    number("family", |all, row| Ok(address(all, 0, row)?.map(|found| if found.is_v6 { 6 } else { 4 })));
    number("masklen", |all, row| Ok(address(all, 0, row)?.map(|found| found.length.into())));
    let mut flag = |name, kernel| {
        add(MarkedFunction::new(name, &[INET, INET], Returns::Type(DataType::Boolean), Kernel::Bool(kernel)));
    };
    flag("inet_same_family", |all, row| both(all, row, |one, other| one.is_v6 == other.is_v6));
    flag("inet_within", |all, row| both(all, row, |one, other| is_within(one, other, false)));
    flag("inet_within_or_equal", |all, row| both(all, row, |one, other| is_within(one, other, true)));
    flag("inet_contains", |all, row| both(all, row, |one, other| is_within(other, one, false)));
    flag("inet_contains_or_equal", |all, row| both(all, row, |one, other| is_within(other, one, true)));
    flag("inet_overlaps", |all, row| {
        both(all, row, |one, other| one.shares(other, one.length.min(other.length)))
    });
}

/// Operators that compute addresses and distances.
fn operations(add: &mut dyn FnMut(MarkedFunction)) {
    let inet = || Returns::Marked(Mark::Inet);
    add(MarkedFunction::new(
        "inet_and",
        &[INET, INET],
        inet(),
        Kernel::Text(|all, row| combined(all, row, "AND", |one, other| one & other)),
    ));
    add(MarkedFunction::new(
        "inet_or",
        &[INET, INET],
        inet(),
        Kernel::Text(|all, row| combined(all, row, "OR", |one, other| one | other)),
    ));
    add(MarkedFunction::new(
        "inet_plus",
        &[INET, Param::Int],
        inet(),
        Kernel::Text(|all, row| moved(all, row, all.int(1, row).map(i128::from))),
    ));
    add(MarkedFunction::new(
        "inet_minus",
        &[INET, Param::Int],
        inet(),
        Kernel::Text(|all, row| moved(all, row, all.int(1, row).map(|by| -i128::from(by)))),
    ));
    let long = Returns::Type(DataType::Int64);
    add(MarkedFunction::new("inet_distance", &[INET, INET], long, Kernel::Long(distance)));
}

fn hardware_functions(add: &mut dyn FnMut(MarkedFunction)) {
    const SIX: Param = Param::Value(Mark::Macaddr);
    const EIGHT: Param = Param::Value(Mark::Macaddr8);
    let mut six = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Marked(Mark::Macaddr), Kernel::Text(kernel)));
    };
    six("trunc_macaddr", &[SIX], |all, row| {
        octets(all, row, Mark::Macaddr, |at, octet| if at < 3 { octet } else { 0 })
    });
    six("macaddr_not", &[SIX], |all, row| octets(all, row, Mark::Macaddr, |_, octet| !octet));
    six("macaddr_and", &[SIX, SIX], |all, row| pairwise(all, row, Mark::Macaddr, |one, other| one & other));
    six("macaddr_or", &[SIX, SIX], |all, row| pairwise(all, row, Mark::Macaddr, |one, other| one | other));
    six("macaddr_of_macaddr8", &[EIGHT], |all, row| {
        let Some(text) = all.text(0, row) else { return Ok(None) };
        Ok(Some(hardware::spelled(&hardware::narrowed(&hardware::macaddr8(text)?)?)))
    });
    let mut eight = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Marked(Mark::Macaddr8), Kernel::Text(kernel)));
    };
    eight("trunc_macaddr8", &[EIGHT], |all, row| {
        octets(all, row, Mark::Macaddr8, |at, octet| if at < 3 { octet } else { 0 })
    });
    eight("macaddr8_set7bit", &[EIGHT], |all, row| {
        octets(all, row, Mark::Macaddr8, |at, octet| if at == 0 { octet | 2 } else { octet })
    });
    eight("macaddr8_of_macaddr", &[SIX], |all, row| octets(all, row, Mark::Macaddr8, |_, octet| octet));
    eight("macaddr8_not", &[EIGHT], |all, row| octets(all, row, Mark::Macaddr8, |_, octet| !octet));
    eight("macaddr8_and", &[EIGHT, EIGHT], |all, row| {
        pairwise(all, row, Mark::Macaddr8, |one, other| one & other)
    });
    eight("macaddr8_or", &[EIGHT, EIGHT], |all, row| {
        pairwise(all, row, Mark::Macaddr8, |one, other| one | other)
    });
}

fn address(all: &Arguments, at: usize, row: usize) -> Result<Option<Address>> {
    all.text(at, row).map(Address::inet).transpose()
}

fn each(all: &Arguments, row: usize, of: impl Fn(Address) -> String) -> Result<Option<String>> {
    Ok(address(all, 0, row)?.map(of))
}

fn both<T>(all: &Arguments, row: usize, of: impl Fn(Address, Address) -> T) -> Result<Option<T>> {
    let (one, other) = (address(all, 0, row)?, address(all, 1, row)?);
    Ok(one.zip(other).map(|(one, other)| of(one, other)))
}

fn of_key(all: &Arguments, row: usize) -> Result<Option<Address>> {
    let read = |key: &str| {
        Address::of_key(key).ok_or_else(|| Error::bug(format!("the key of an address can't be read: {key}")))
    };
    all.text(0, row).map(read).transpose()
}

/// True if the network of the first address is a part of that of the second.
fn is_within(one: Address, other: Address, or_equal: bool) -> bool {
    let is_longer = one.length > other.length || (or_equal && one.length == other.length);
    is_longer && one.shares(other, other.length)
}

fn invalid(message: String) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE)
}

fn out_of_range() -> Error {
    Error::invalid("result is out of range").code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
}

/// Returns the smallest network that includes both.
fn merge(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some((one, other)) = both(all, row, |one, other| (one, other))? else { return Ok(None) };
    if one.is_v6 != other.is_v6 {
        return Err(invalid("cannot merge addresses from different families".into()));
    }
    let differs = (one.bits ^ other.bits).leading_zeros() - (128 - u32::from(one.width()));
    let length = u32::from(one.length.min(other.length)).min(differs) as u8;
    Ok(Some(Address { length, ..one }.network().with_length()))
}

fn with_masklen(all: &Arguments, row: usize) -> Result<Option<Address>> {
    let (Some(found), Some(length)) = (address(all, 0, row)?, all.int(1, row)) else { return Ok(None) };
    let length = match u8::try_from(length) {
        _ if length == -1 => found.width(),
        Ok(length) if length <= found.width() => length,
        _ => return Err(invalid(format!("invalid mask length: {length}"))),
    };
    Ok(Some(Address { length, ..found }))
}

fn combined(
    all: &Arguments,
    row: usize,
    name: &str,
    of: impl Fn(u128, u128) -> u128,
) -> Result<Option<String>> {
    let Some((one, other)) = both(all, row, |one, other| (one, other))? else { return Ok(None) };
    if one.is_v6 != other.is_v6 {
        return Err(invalid(format!("cannot {name} inet values of different sizes")));
    }
    let length = one.length.max(other.length);
    Ok(Some(Address { bits: of(one.bits, other.bits), length, ..one }.to_inet()))
}

fn moved(all: &Arguments, row: usize, by: Option<i128>) -> Result<Option<String>> {
    let (Some(found), Some(by)) = (address(all, 0, row)?, by) else { return Ok(None) };
    let bits = found.bits.checked_add_signed(by).filter(|bits| *bits <= found.ones());
    Ok(Some(Address { bits: bits.ok_or_else(out_of_range)?, ..found }.to_inet()))
}

fn distance(all: &Arguments, row: usize) -> Result<Option<i64>> {
    let Some((one, other)) = both(all, row, |one, other| (one, other))? else { return Ok(None) };
    if one.is_v6 != other.is_v6 {
        return Err(invalid("cannot subtract inet values of different sizes".into()));
    }
    let distance = i128::try_from(one.bits.abs_diff(other.bits)).map_err(|_| out_of_range())?;
    let distance = if one.bits < other.bits { -distance } else { distance };
    Ok(Some(i64::try_from(distance).map_err(|_| out_of_range())?))
}

fn octets(all: &Arguments, row: usize, mark: Mark, of: impl Fn(usize, u8) -> u8) -> Result<Option<String>> {
    let Some(text) = all.text(0, row) else { return Ok(None) };
    let octets = bytes(mark, text)?.into_iter().enumerate().map(|(at, octet)| of(at, octet));
    Ok(Some(hardware::spelled(&octets.collect::<Vec<u8>>())))
}

fn pairwise(all: &Arguments, row: usize, mark: Mark, of: impl Fn(u8, u8) -> u8) -> Result<Option<String>> {
    let (Some(one), Some(other)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    let octets = bytes(mark, one)?.into_iter().zip(bytes(mark, other)?).map(|(one, other)| of(one, other));
    Ok(Some(hardware::spelled(&octets.collect::<Vec<u8>>())))
}
