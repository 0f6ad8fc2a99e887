//! Reads and writes the texts of shapes in PostgreSQL's forms.

use super::point::Point;
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most characters of a wrong text that a message shows.
const SHOWN_MAX: usize = 60;

/// The digits before the point from which on a number has an exponent.
const DIGITS_MAX: i32 = 15;

/// A number of so many digits is close to one float only if it is less than [`INTEGERS_MAX`].
const EXACT_DIGITS: usize = 15;

/// The number from which on not all integers are floats.
const INTEGERS_MAX: f64 = 9_007_199_254_740_992.0;

/// The digits that are enough for any float.
const DIGITS_OF_ANY: usize = 17;

/// The digits that make a number different, but too little to be nearer to another float.
const CLOSE_DIGITS: usize = 60;

/// Reads a text from its beginning.
pub(super) struct Cursor<'a> {
    type_name: &'static str,
    expected: &'static str,
    text: &'a str,
    rest: &'a str,
}

/// True for the blanks that C's `isspace` knows.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

impl<'a> Cursor<'a> {
    /// Starts behind leading blanks. The names of the type and of its forms are for errors.
    pub(super) fn new(type_name: &'static str, expected: &'static str, text: &'a str) -> Cursor<'a> {
        Cursor { type_name, expected, text, rest: text.trim_start_matches(is_blank) }
    }

    /// Returns the error of a text that is no value of the type.
    pub(super) fn wrong(&self) -> Error {
        let message = format!("invalid input syntax for type {}: \"{}\"", self.type_name, shown(self.text));
        Error::invalid(message)
            .hint(format!("Expected {}.", self.expected))
            .code(sqlstate::INVALID_TEXT_REPRESENTATION)
    }

    /// True if the rest begins with a character.
    pub(super) fn is_at(&self, c: char) -> bool {
        self.rest.starts_with(c)
    }

    /// Passes a character. Returns false if the rest begins with another.
    pub(super) fn take(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Passes a character, or fails.
    pub(super) fn expect(&mut self, c: char) -> Result<()> {
        if self.take(c) { Ok(()) } else { Err(self.wrong()) }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(is_blank);
    }

    /// Fails if the text isn't at its end.
    pub(super) fn expect_end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.wrong()) }
    }

    /// Passes a bracket that surrounds others: one before another, or the last opening one. Returns false if there is none.
    fn take_outer(&mut self) -> bool {
        let Some(inner) = self.rest.strip_prefix('(') else { return false };
        let is_outer = inner.trim_start_matches(is_blank).starts_with('(') || !inner.contains('(');
        if is_outer {
            self.rest = inner.trim_start_matches(is_blank);
        }
        is_outer
    }

    /// Passes a bracket that is directly before another. Returns false if there is none.
    pub(super) fn take_double(&mut self) -> bool {
        let inner = self.rest.strip_prefix('(').map(|inner| inner.trim_start_matches(is_blank));
        match inner.filter(|inner| inner.starts_with('(')) {
            Some(inner) => {
                self.rest = inner;
                true
            }
            None => false,
        }
    }

    /// Passes the only opening bracket. Returns false if there are others or none.
    pub(super) fn take_only(&mut self) -> bool {
        let is_only = self.rest.strip_prefix('(').is_some_and(|inner| !inner.contains('('));
        is_only && self.take('(')
    }

    /// Passes a closing bracket with the blanks after it, or fails.
    pub(super) fn close(&mut self, closing: &[char]) -> Result<()> {
        let found = closing.iter().any(|c| self.take(*c));
        self.skip_blanks();
        if found { Ok(()) } else { Err(self.wrong()) }
    }

    /// Reads a number with the blanks around it.
    pub(super) fn number(&mut self) -> Result<f64> {
        self.skip_blanks();
        let hexadecimal = hexadecimal(self.rest);
        let length = hexadecimal.map_or_else(|| number_length(self.rest), |(_, length)| length);
        let (digits, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.wrong())?;
        let value = match hexadecimal {
            Some((value, _)) => value,
            None => digits.parse().map_err(|_| self.wrong())?,
        };
        let is_number = digits.contains(|c: char| c.is_ascii_digit());
        if is_number && (value.is_infinite() || (value == 0.0 && !is_zero(digits))) {
            let message = format!("\"{}\" is out of range for type double precision", shown(digits));
            return Err(Error::invalid(message).code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE));
        }
        self.rest = rest;
        self.skip_blanks();
        Ok(value)
    }

    /// Reads `(x,y)` or `x,y`.
    pub(super) fn pair(&mut self) -> Result<Point> {
        self.skip_blanks();
        let has_bracket = self.take('(');
        let x = self.number()?;
        self.expect(',')?;
        let y = self.number()?;
        if has_bracket {
            self.close(&[')'])?;
        }
        Ok(Point { x, y })
    }

    /// Reads points and the brackets around them. Returns true if the brackets are those of an open path.
    pub(super) fn points(&mut self, count: usize, may_be_open: bool) -> Result<(Vec<Point>, bool)> {
        self.skip_blanks();
        let is_open = self.is_at('[');
        if is_open && !may_be_open {
            return Err(self.wrong());
        }
        let has_outer = if is_open { self.take('[') } else { self.take_outer() };
        let mut points = Vec::new();
        for _ in 0..count {
            points.push(self.pair()?);
            self.take(',');
        }
        if has_outer {
            self.close(if is_open { &[')', ']'] } else { &[')'] })?;
        }
        Ok((points, is_open))
    }

    /// Returns the number of points that the commas of the text separate; fails if a number is missing.
    pub(super) fn count(&self) -> Result<usize> {
        let commas = self.text.bytes().filter(|byte| *byte == b',').count();
        if commas % 2 == 1 { Ok(commas.div_ceil(2)) } else { Err(self.wrong()) }
    }
}

/// Shortens a text for a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Returns the bytes of the number that a text begins with; 0 if there is none.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is = |at: usize, of: &[u8]| bytes.get(at).is_some_and(|byte| of.contains(byte));
    let digits = |from: usize| {
        bytes.get(from..).map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count())
    };
    let sign = usize::from(is(0, b"+-"));
    let word = |word: &&str| {
        let end = sign + word.len();
        text.get(sign..end).is_some_and(|found| found.eq_ignore_ascii_case(word))
    };
    if let Some(word) = ["infinity", "inf", "nan"].iter().find(|known| word(known)) {
        return sign + word.len();
    }
    let whole = digits(sign);
    let mut end = sign + whole;
    let mut count = whole;
    if is(end, b".") {
        let fraction = digits(end + 1);
        count += fraction;
        end += 1 + fraction;
    }
    if count == 0 {
        return 0;
    }
    if is(end, b"eE") {
        let start = end + 1 + usize::from(is(end + 1, b"+-"));
        let exponent = digits(start);
        if exponent > 0 {
            return start + exponent;
        }
    }
    end
}

/// True if the digits before an exponent are zeros.
fn is_zero(digits: &str) -> bool {
    let digits = digits.trim_start_matches(['+', '-']);
    let (digits, exponent) = match digits.strip_prefix(['0']).and_then(|rest| rest.strip_prefix(['x', 'X'])) {
        Some(digits) => (digits, ['p', 'P']),
        None => (digits, ['e', 'E']),
    };
    digits.split(exponent).next().is_none_or(|mantissa| mantissa.chars().all(|c| matches!(c, '0' | '.')))
}

/// Reads the hexadecimal number that a text begins with, such as `-0x1.8p3`. Returns the value and the number of bytes.
fn hexadecimal(text: &str) -> Option<(f64, usize)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut rest = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"))?;
    let (mut mantissa, mut exponent, mut count, mut is_fraction) = (0_u64, 0_i64, 0, false);
    while let Some(c) = rest.chars().next() {
        match c.to_digit(16) {
            Some(digit) if mantissa >> 59 == 0 => {
                mantissa = mantissa << 4 | u64::from(digit);
                exponent -= if is_fraction { 4 } else { 0 };
                count += 1;
            }
            // A digit that doesn't fit only decides between two floats.
            Some(digit) => {
                mantissa |= u64::from(digit != 0);
                exponent += if is_fraction { 0 } else { 4 };
            }
            None if c == '.' && !is_fraction => is_fraction = true,
            None => break,
        }
        rest = rest.get(1..)?;
    }
    if count == 0 {
        return None;
    }
    if let Some(written) = rest.strip_prefix(['p', 'P']) {
        let digits = written.strip_prefix(['+', '-']).unwrap_or(written);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let (power, after) = digits.split_at_checked(end)?;
        if !power.is_empty() {
            let power = power.parse::<i64>().unwrap_or(i64::MAX).min(1 << 40);
            exponent = exponent.saturating_add(if written.starts_with('-') { -power } else { power });
            rest = after;
        }
    }
    // In three steps, as a power of two can leave the range while the result doesn't.
    let power = exponent.clamp(-3_000, 3_000) as i32;
    let (third, last) = (power / 3, power - power / 3 * 2);
    let value = mantissa as f64 * 2_f64.powi(third) * 2_f64.powi(third) * 2_f64.powi(last);
    Some((if text.starts_with('-') { -value } else { value }, text.len() - rest.len()))
}

/// Appends a number: the shortest digits that are read as the same number, in PostgreSQL's layout.
pub(super) fn put_number(out: &mut String, value: f64) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let shortest = shortest(value);
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..DIGITS_MAX).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return out.push_str(&format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()));
    }
    let fraction = mantissa.split_once('.').map_or(0, |(_, digits)| digits.len());
    let places = fraction.saturating_add_signed(-exponent as isize);
    out.push_str(&format!("{value:.places$}"));
}

/// Returns the shortest digits that only this number has, as `d.ddde0`. Unlike those that `{:e}` writes, they aren't exactly
/// between two numbers, and if two have the same distance from the number, the last digit is even.
fn shortest(value: f64) -> String {
    let written = format!("{value:e}");
    let digits = written.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
    if digits <= EXACT_DIGITS && value.abs() < INTEGERS_MAX {
        return written;
    }
    let nearest = |digits: usize| format!("{value:.places$e}", places = digits.saturating_sub(1));
    let is_same = |text: &str| text.parse() == Ok(value);
    let is_own = |text: &String| is_same(text) && neighbours(text).iter().all(|close| is_same(close));
    let longer = (digits + 1..=DIGITS_OF_ANY).map(nearest);
    let all = [nearest(digits), written.clone()].into_iter().chain(longer);
    all.filter(|text| !text.contains("0e")).find(is_own).unwrap_or(written)
}

/// Returns two numbers very close to one that is written as `d.ddde0`: one on either side.
fn neighbours(text: &str) -> [String; 2] {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let point = if mantissa.contains('.') { "" } else { "." };
    let above = format!("{mantissa}{point}{}1e{exponent}", "0".repeat(CLOSE_DIGITS));
    // Subtracts one from the last digit, which isn't zero.
    let (kept, last) = mantissa.split_at(mantissa.len().saturating_sub(1));
    let last = last.parse::<u32>().unwrap_or(0).saturating_sub(1);
    let below = format!("{kept}{last}{point}{}e{exponent}", "9".repeat(CLOSE_DIGITS));
    [above, below]
}

/// Appends `(x,y)`.
pub(super) fn put_point(out: &mut String, point: Point) {
    out.push('(');
    put_number(out, point.x);
    out.push(',');
    put_number(out, point.y);
    out.push(')');
}

/// Appends points with commas between them.
pub(super) fn put_points(out: &mut String, points: &[Point]) {
    for (at, point) in points.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        put_point(out, *point);
    }
}
