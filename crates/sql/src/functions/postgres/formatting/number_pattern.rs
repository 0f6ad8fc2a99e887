//! The patterns of `to_char` and `to_number` for numbers: `NUMDesc_prepare` of PostgreSQL's formatting.c.

use crate::error::{Error, Result};

/// The most digits of a pattern.
const DIGITS_MAX: usize = 1_000;

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Nine,
    Zero,
    Point,
    Comma,
    Group,
    Currency,
    Minus,
    Plus,
    Sign,
    Roman {
        upper: bool,
    },
    Ordinal {
        upper: bool,
    },
    /// A word that writes nothing by itself.
    Silent,
    Text(char),
}

/// Where `S` writes the sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Before the first digit. The number is the count of digits before the `S`.
    Before(usize),
    After,
}

/// The way to write the sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// `S`.
    pub(super) anchor: Option<Anchor>,
    /// `MI` or `SG`.
    pub(super) minus: bool,
    /// `PL` or `SG`.
    pub(super) plus: bool,
    /// `PR`.
    pub(super) bracket: bool,
}

impl Signs {
    fn any(self) -> bool {
        self.anchor.is_some() || self.minus || self.plus || self.bracket
    }
}

/// The places of the zeros: the first one, and the number of digits up to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zeros {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct Pattern {
    pub(super) nodes: Vec<Node>,
    /// The digits before the point.
    pub(super) before: usize,
    /// The digits behind the point.
    pub(super) after: usize,
    /// The digits behind `V`.
    pub(super) shift: usize,
    pub(super) signs: Signs,
    pub(super) zeros: Option<Zeros>,
    pub(super) point: bool,
    /// `FM`.
    pub(super) unfilled: bool,
    /// `RN`.
    pub(super) roman: bool,
    /// `EEEE`.
    pub(super) exponent: bool,
    /// `B`.
    pub(super) blank: bool,
    /// `V`.
    pub(super) multiplied: bool,
}

/// The words. A longer one comes before its prefix.
const WORDS: [&str; 20] = [
    "EEEE", "FM", "MI", "PL", "PR", "RN", "SG", "SP", "TH", ",", ".", "0", "9", "B", "C", "D", "G", "L", "S",
    "V",
];

/// Returns the word at the start of a pattern: all of it in upper or in lower case.
fn word_at(rest: &str) -> Option<&'static str> {
    WORDS.into_iter().find(|word| {
        rest.get(..word.len()).is_some_and(|start| start == *word || start == word.to_ascii_lowercase())
    })
}

fn wrong(pattern: &str, message: &str) -> Error {
    Error::invalid(format!("the pattern '{pattern}' of a number is wrong: {message}"))
}

impl Pattern {
    /// Parses a pattern.
    pub(super) fn parse(pattern: &str) -> Result<Pattern> {
        let mut parsed = Pattern::default();
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            if let Some(word) = word_at(rest) {
                let upper = rest.starts_with(word);
                let node = parsed.word(word, upper).map_err(|message| wrong(pattern, message))?;
                parsed.nodes.push(node);
                rest = &rest[word.len()..];
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '"' => rest = parsed.quoted(rest),
                '\\' if rest.starts_with('"') => {
                    parsed.nodes.push(Node::Text('"'));
                    rest = &rest[1..];
                }
                c => parsed.nodes.push(Node::Text(c)),
            }
        }
        if parsed.before + parsed.after + parsed.shift > DIGITS_MAX {
            return Err(wrong("9…", &format!("it has more than {DIGITS_MAX} digits")));
        }
        Ok(parsed)
    }

    /// Adds quoted text. Returns the rest behind the quote.
    fn quoted<'a>(&mut self, rest: &'a str) -> &'a str {
        let mut chars = rest.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => self.nodes.push(Node::Text(chars.next().unwrap_or('\\'))),
                c => self.nodes.push(Node::Text(c)),
            }
        }
        chars.as_str()
    }

    fn word(&mut self, word: &str, upper: bool) -> Result<Node, &'static str> {
        if self.exponent && word != "EEEE" {
            return Err("\"EEEE\" must be the last pattern used");
        }
        match word {
            "9" | "0" => return self.digit(word == "0"),
            "S" | "MI" | "PL" | "SG" | "PR" => return self.sign(word),
            "." | "D" => {
                if self.point {
                    return Err("multiple decimal points");
                }
                if self.multiplied {
                    return Err("cannot use \"V\" and decimal point together");
                }
                self.point = true;
                return Ok(Node::Point);
            }
            "V" if self.point => return Err("cannot use \"V\" and decimal point together"),
            "V" => self.multiplied = true,
            "B" => self.blank |= self.before == 0 && self.after == 0 && self.zeros.is_none(),
            "FM" => self.unfilled = true,
            "RN" => {
                self.roman = true;
                return Ok(Node::Roman { upper });
            }
            "TH" => return Ok(Node::Ordinal { upper }),
            "," => return Ok(Node::Comma),
            "G" => return Ok(Node::Group),
            "L" => return Ok(Node::Currency),
            "EEEE" => {
                if self.exponent {
                    return Err("cannot use \"EEEE\" twice");
                }
                if self.blank || self.unfilled || self.signs.any() || self.roman || self.multiplied {
                    return Err("\"EEEE\" may only be used together with digit and decimal point patterns");
                }
                self.exponent = true;
            }
            _ => {}
        }
        Ok(Node::Silent)
    }

    fn digit(&mut self, zero: bool) -> Result<Node, &'static str> {
        if self.signs.bracket {
            return Err("digits must be ahead of \"PR\"");
        }
        if !zero && self.multiplied {
            self.shift += 1;
            return Ok(Node::Nine);
        }
        let start = self.before;
        if self.point {
            self.after += 1;
        } else {
            self.before += 1;
        }
        if !zero {
            return Ok(Node::Nine);
        }
        let end = self.before + self.after;
        match &mut self.zeros {
            Some(zeros) => zeros.end = end,
            None if self.point => self.zeros = Some(Zeros { start: usize::MAX, end }),
            None => self.zeros = Some(Zeros { start, end }),
        }
        Ok(Node::Zero)
    }

    fn sign(&mut self, word: &str) -> Result<Node, &'static str> {
        let signs = &mut self.signs;
        match word {
            "S" if signs.anchor.is_some() => return Err("cannot use \"S\" twice"),
            "S" if signs.any() => {
                return Err("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together");
            }
            "S" => {
                signs.anchor = Some(if self.point { Anchor::After } else { Anchor::Before(self.before) });
                return Ok(Node::Silent);
            }
            "PR" if signs.any() && !signs.bracket => {
                return Err("cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together");
            }
            "PR" => {
                signs.bracket = true;
                return Ok(Node::Silent);
            }
            _ if signs.anchor.is_some() => return Err("cannot use \"S\" and \"MI\"/\"PL\"/\"SG\" together"),
            _ => {}
        }
        signs.minus |= word != "PL";
        signs.plus |= word != "MI";
        Ok(match word {
            "MI" => Node::Minus,
            "PL" => Node::Plus,
            _ => Node::Sign,
        })
    }

    /// True if a `0` stands before the point: such a number shows zeros in place of blanks.
    pub(super) fn zero_start(&self) -> Option<usize> {
        self.zeros.map(|zeros| zeros.start).filter(|start| *start != usize::MAX)
    }

    /// The number of digits up to the last `0`.
    pub(super) fn zero_end(&self) -> usize {
        self.zeros.map_or(0, |zeros| zeros.end)
    }
}
