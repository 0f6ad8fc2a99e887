//! The patterns of `to_char`, `to_date` and `to_timestamp` for times, as a list of nodes.

/// A part of a pattern that is written by a field of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// AD or BC, with points if `dots`.
    Era {
        dots: bool,
        upper: bool,
    },
    /// AM or PM, with points if `dots`.
    Half {
        dots: bool,
        upper: bool,
    },
    Century,
    Month(Case),
    ShortMonth(Case),
    MonthNumber,
    RomanMonth {
        upper: bool,
    },
    Day(Case),
    ShortDay(Case),
    DayOfYear,
    DayOfMonth,
    DayOfWeek,
    IsoDayOfYear,
    IsoDayOfWeek,
    WeekOfYear,
    WeekOfMonth,
    IsoWeek,
    Quarter,
    Julian,
    Hour24,
    Hour12,
    Minute,
    Second,
    /// A fraction of a second with this many digits.
    Fraction(u32),
    Milliseconds,
    Microseconds,
    SecondOfDay,
    /// The year with this many of its last digits.
    Year(u32),
    IsoYear(u32),
    /// `Y,YYY`.
    YearWithComma,
    ZoneHours,
    ZoneMinutes,
    ZoneName {
        upper: bool,
    },
    ZoneOffset,
    /// `FX`: the text has exactly the form of the pattern.
    Exact,
}

/// The letters of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Capital,
    Lower,
}

/// The convention by which a field counts days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Convention {
    Gregorian,
    Iso,
}

/// A word of a pattern.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) text: &'static str,
    pub(super) field: Field,
    /// The digits that the field has in a text to be read.
    pub(super) length: usize,
}

/// A word with its modifiers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Action {
    pub(super) word: &'static Word,
    /// `FM`: no blanks or zeros fill the field up.
    pub(super) unfilled: bool,
    /// `TM`: names aren't filled up.
    pub(super) translated: bool,
    /// The ordinal suffix `TH` or `th`; true is upper case.
    pub(super) ordinal: Option<bool>,
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    Action(Action),
    Separator(char),
    Space(char),
    Text(char),
}

impl Word {
    pub(super) fn convention(&self) -> Option<Convention> {
        match self.field {
            Field::IsoDayOfYear | Field::IsoDayOfWeek | Field::IsoWeek | Field::IsoYear(_) => {
                Some(Convention::Iso)
            }
            Field::Month(_)
            | Field::ShortMonth(_)
            | Field::MonthNumber
            | Field::RomanMonth { .. }
            | Field::DayOfYear
            | Field::DayOfMonth
            | Field::DayOfWeek
            | Field::WeekOfYear
            | Field::WeekOfMonth
            | Field::Year(_)
            | Field::YearWithComma => Some(Convention::Gregorian),
            _ => None,
        }
    }

    /// Returns true if the field is read from digits.
    pub(super) fn is_digits(&self) -> bool {
        !matches!(
            self.field,
            Field::Era { .. }
                | Field::Half { .. }
                | Field::Month(_)
                | Field::ShortMonth(_)
                | Field::RomanMonth { .. }
                | Field::Day(_)
                | Field::ShortDay(_)
                | Field::Fraction(_)
                | Field::ZoneHours
                | Field::ZoneName { .. }
                | Field::ZoneOffset
                | Field::Exact
        )
    }
}

const fn word(text: &'static str, field: Field) -> Word {
    Word { text, field, length: text.len() }
}

const fn sized(text: &'static str, field: Field, length: usize) -> Word {
    Word { text, field, length }
}

/// The words in upper case. Of two, a longer one comes before its prefix. Names have their own list.
static UPPER: [Word; 49] = [
    word("A.D.", Field::Era { dots: true, upper: true }),
    word("B.C.", Field::Era { dots: true, upper: true }),
    word("AD", Field::Era { dots: false, upper: true }),
    word("BC", Field::Era { dots: false, upper: true }),
    word("A.M.", Field::Half { dots: true, upper: true }),
    word("P.M.", Field::Half { dots: true, upper: true }),
    word("AM", Field::Half { dots: false, upper: true }),
    word("PM", Field::Half { dots: false, upper: true }),
    word("CC", Field::Century),
    word("DDD", Field::DayOfYear),
    word("DD", Field::DayOfMonth),
    word("FF1", Field::Fraction(1)),
    word("FF2", Field::Fraction(2)),
    word("FF3", Field::Fraction(3)),
    word("FF4", Field::Fraction(4)),
    word("FF5", Field::Fraction(5)),
    word("FF6", Field::Fraction(6)),
    word("FX", Field::Exact),
    sized("HH24", Field::Hour24, 2),
    sized("HH12", Field::Hour12, 2),
    word("HH", Field::Hour12),
    sized("IDDD", Field::IsoDayOfYear, 3),
    sized("ID", Field::IsoDayOfWeek, 1),
    word("IW", Field::IsoWeek),
    word("IYYY", Field::IsoYear(4)),
    word("IYY", Field::IsoYear(3)),
    word("IY", Field::IsoYear(2)),
    word("I", Field::IsoYear(1)),
    word("J", Field::Julian),
    word("MI", Field::Minute),
    word("MM", Field::MonthNumber),
    sized("MS", Field::Milliseconds, 3),
    word("OF", Field::ZoneOffset),
    word("Q", Field::Quarter),
    word("SSSSS", Field::SecondOfDay),
    word("SSSS", Field::SecondOfDay),
    word("SS", Field::Second),
    sized("TZH", Field::ZoneHours, 2),
    sized("TZM", Field::ZoneMinutes, 2),
    word("TZ", Field::ZoneName { upper: true }),
    sized("US", Field::Microseconds, 6),
    word("WW", Field::WeekOfYear),
    word("W", Field::WeekOfMonth),
    word("Y,YYY", Field::YearWithComma),
    word("YYYY", Field::Year(4)),
    word("YYY", Field::Year(3)),
    word("YY", Field::Year(2)),
    word("Y", Field::Year(1)),
    word("RM", Field::RomanMonth { upper: true }),
];

/// Words whose letters count, and those that only exist in these cases.
static NAMES: [Word; 21] = [
    word("MONTH", Field::Month(Case::Upper)),
    word("Month", Field::Month(Case::Capital)),
    word("month", Field::Month(Case::Lower)),
    word("MON", Field::ShortMonth(Case::Upper)),
    word("Mon", Field::ShortMonth(Case::Capital)),
    word("mon", Field::ShortMonth(Case::Lower)),
    word("DAY", Field::Day(Case::Upper)),
    word("Day", Field::Day(Case::Capital)),
    word("day", Field::Day(Case::Lower)),
    word("DY", Field::ShortDay(Case::Upper)),
    word("Dy", Field::ShortDay(Case::Capital)),
    word("dy", Field::ShortDay(Case::Lower)),
    word("a.d.", Field::Era { dots: true, upper: false }),
    word("b.c.", Field::Era { dots: true, upper: false }),
    word("ad", Field::Era { dots: false, upper: false }),
    word("bc", Field::Era { dots: false, upper: false }),
    word("a.m.", Field::Half { dots: true, upper: false }),
    word("p.m.", Field::Half { dots: true, upper: false }),
    word("am", Field::Half { dots: false, upper: false }),
    word("pm", Field::Half { dots: false, upper: false }),
    word("rm", Field::RomanMonth { upper: false }),
];

/// Words that come after all others, since they are prefixes of them.
static SHORT: [Word; 2] = [word("D", Field::DayOfWeek), word("tz", Field::ZoneName { upper: false })];

/// Returns the word at the start of a text. Words other than names may be in upper or lower case.
fn word_at(text: &str) -> Option<&'static Word> {
    let same = |word: &&Word| text.starts_with(word.text);
    let lower = |word: &&Word| {
        let start = text.get(..word.text.len());
        start.is_some_and(|start| {
            start.eq_ignore_ascii_case(word.text) && !start.bytes().any(|byte| byte.is_ascii_uppercase())
        })
    };
    let cased = |word: &&Word| {
        matches!(word.field, Field::Era { .. } | Field::Half { .. } | Field::RomanMonth { .. })
    };
    let lower_case =
        UPPER.iter().filter(|word| !cased(word) && !matches!(word.field, Field::ZoneName { .. }));
    let day_of_week = || SHORT.iter().find(|word| same(word) || (word.text == "D" && lower(word)));
    NAMES
        .iter()
        .find(same)
        .or_else(|| UPPER.iter().find(same))
        .or_else(|| lower_case.clone().find(lower))
        .or_else(day_of_week)
}

/// Parses a pattern. Every text is a pattern.
pub(super) fn parse(pattern: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut rest = pattern;
    while !rest.is_empty() {
        let prefix = ["FM", "fm", "TM", "tm"].into_iter().find(|prefix| rest.starts_with(prefix));
        rest = &rest[prefix.map_or(0, str::len)..];
        if let Some(word) = word_at(rest) {
            rest = &rest[word.text.len()..];
            let unfilled = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("fm"));
            let mut action =
                Action { word, unfilled, translated: prefix.is_some() && !unfilled, ordinal: None };
            if let Some(suffix) = ["TH", "th", "SP"].into_iter().find(|suffix| rest.starts_with(suffix)) {
                rest = &rest[2..];
                action.ordinal = (suffix != "SP").then_some(suffix == "TH");
            }
            nodes.push(Node::Action(action));
            continue;
        }
        rest = literal(rest, &mut nodes);
    }
    nodes
}

/// Adds the text at the start of a pattern, quoted or not. Returns the rest.
fn literal<'a>(rest: &'a str, nodes: &mut Vec<Node>) -> &'a str {
    let mut chars = rest.chars();
    match chars.next() {
        Some('"') => {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => nodes.push(Node::Text(chars.next().unwrap_or('\\'))),
                    c => nodes.push(Node::Text(c)),
                }
            }
            chars.as_str()
        }
        Some(first) => {
            // A backslash counts only before a quote.
            let c = match first {
                '\\' if chars.as_str().starts_with('"') => chars.next().unwrap_or(first),
                c => c,
            };
            nodes.push(match c {
                c if is_separator(c) => Node::Separator(c),
                c if is_space(c) => Node::Space(c),
                c => Node::Text(c),
            });
            chars.as_str()
        }
        None => "",
    }
}

/// Returns true for a character that separates fields.
pub(super) fn is_separator(c: char) -> bool {
    c.is_ascii_punctuation()
}

/// Returns true for the characters that C takes for space.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}
