//! The bytes of one datum, read within their bounds.

use super::schema::{AvroSchema, Kind, TypeId};
use crate::formats::target::Wrong;

/// Most levels of values within values.
const DEPTH_MAX: usize = 64;

/// The rest of a datum's bytes.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
    /// How many more values may be read. Values without bytes, such as the items of an array of nulls, could otherwise
    /// be endless.
    values_max: usize,
}

impl<'a> Input<'a> {
    /// Creates the input of one datum.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes, values_max: 65_536 + bytes.len().saturating_mul(16) }
    }

    /// Returns the number of bytes that are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Counts a value.
    pub fn count(&mut self) -> Result<(), Wrong> {
        let too_many = || Wrong::new("has more values than its bytes can hold");
        self.values_max = self.values_max.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }

    /// Takes bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Wrong> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(Wrong::new(format!(
                "ends too early: {length} bytes were expected, but {} are left",
                self.rest.len()
            )));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Takes an array of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Takes a whole number.
    pub fn long(&mut self) -> Result<i64, Wrong> {
        let mut value = 0_u64;
        for (place, byte) in self.rest.iter().enumerate().take(10) {
            if place == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(Wrong::new(match self.rest.len() < 10 {
            true => "ends within a whole number",
            false => "has a whole number of more than 64 bits",
        }))
    }

    /// Takes a whole number of at most 32 bits.
    pub fn int(&mut self) -> Result<i64, Wrong> {
        let value = self.long()?;
        match i32::try_from(value) {
            Ok(_) => Ok(value),
            Err(_) => Err(Wrong::new(format!("is {value}, but its type in the writer's schema is int"))),
        }
    }

    /// Takes bytes that follow their length.
    pub fn bytes(&mut self) -> Result<&'a [u8], Wrong> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(Wrong::new(format!("has the length {length}"))),
        }
    }

    /// Takes a text.
    pub fn text(&mut self) -> Result<&'a str, Wrong> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|error| Wrong::new(format!("is no UTF-8: {error}")))
    }

    /// Takes the head of a block of an array or a map. Returns the number of items; zero is the end.
    pub fn block(&mut self) -> Result<u64, Wrong> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }

    /// Takes the branch of a union.
    pub fn branch(&mut self, branches: usize) -> Result<usize, Wrong> {
        self.place(branches, "branch", "union")
    }

    /// Takes the symbol of an enum.
    pub fn symbol(&mut self, symbols: usize) -> Result<usize, Wrong> {
        self.place(symbols, "symbol", "enum")
    }

    fn place(&mut self, count: usize, one: &str, of: &str) -> Result<usize, Wrong> {
        let place = self.long()?;
        let known = usize::try_from(place).ok().filter(|place| *place < count);
        known.ok_or_else(|| Wrong::new(format!("is {one} {place} of a {of} that has {count}")))
    }

    /// Takes a boolean.
    pub fn boolean(&mut self) -> Result<bool, Wrong> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Wrong::new(format!("is the byte {other}, but a boolean is 0 or 1"))),
        }
    }

    /// Skips a value.
    pub fn skip(&mut self, schema: &AvroSchema, id: TypeId, depth: usize) -> Result<(), Wrong> {
        self.count()?;
        if depth > DEPTH_MAX {
            return Err(Wrong::new(format!("has more than {DEPTH_MAX} levels of values within values")));
        }
        match &schema.get(id).kind {
            Kind::Null => {}
            Kind::Boolean => drop(self.boolean()?),
            Kind::Int | Kind::Long => drop(self.long()?),
            Kind::Float => drop(self.take(4)?),
            Kind::Double => drop(self.take(8)?),
            Kind::Bytes | Kind::String => drop(self.bytes()?),
            Kind::Fixed(size) => drop(self.take(*size)?),
            Kind::Enum(symbols) => drop(self.symbol(symbols.len())?),
            Kind::Union(branches) => {
                let branch = self.branch(branches.len())?;
                self.skip(schema, branches[branch], depth + 1)?;
            }
            Kind::Record { fields, .. } => {
                for (name, field) in fields {
                    self.skip(schema, *field, depth + 1).map_err(|wrong| wrong.within(name))?;
                }
            }
            Kind::Array(item) => self.skip_blocks(schema, *item, false, depth)?,
            Kind::Map(value) => self.skip_blocks(schema, *value, true, depth)?,
        }
        Ok(())
    }

    fn skip_blocks(
        &mut self,
        schema: &AvroSchema,
        item: TypeId,
        has_keys: bool,
        depth: usize,
    ) -> Result<(), Wrong> {
        loop {
            let count = self.block()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                if has_keys {
                    self.bytes()?;
                }
                self.skip(schema, item, depth + 1)?;
            }
        }
    }
}
