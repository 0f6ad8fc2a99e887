//! Patterns of strftime, and simple ones of PostgreSQL in terms of them, for `to_timestamp_millis` and its kin.
//!
//! A pattern with a `%` is one of strftime; any other is PostgreSQL's. Plans that earlier versions stored use these also
//! for `to_char`, `to_date` and `to_timestamp`; [`super::formatting`] replaces them there.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions::datetime::to_timestamp::{
    ToTimestampMicrosFunc, ToTimestampMillisFunc, ToTimestampNanosFunc, ToTimestampSecondsFunc,
};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::error::Error;
use crate::functions::Registry;

/// Replaces DataFusion's functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.replace("to_timestamp_seconds", |f| f.inner().is::<ToTimestampSecondsFunc>(), patterned);
    registry.replace("to_timestamp_millis", |f| f.inner().is::<ToTimestampMillisFunc>(), patterned);
    registry.replace("to_timestamp_micros", |f| f.inner().is::<ToTimestampMicrosFunc>(), patterned);
    registry.replace("to_timestamp_nanos", |f| f.inner().is::<ToTimestampNanosFunc>(), patterned);
}

/// Wraps DataFusion's function.
pub(super) fn patterned(inner: Arc<ScalarUDF>) -> ScalarUDF {
    ScalarUDF::from(Patterned { inner })
}

/// True for a function with these patterns.
pub(crate) fn is_patterned(function: &ScalarUDF) -> bool {
    function.inner().is::<Patterned>()
}

/// DataFusion's function with patterns of both kinds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Patterned {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Patterned {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn invoke_with_args(&self, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        for argument in arguments.args.iter_mut().skip(1) {
            *argument = match &*argument {
                ColumnarValue::Scalar(value) => match value.try_as_str() {
                    Some(Some(pattern)) => {
                        let pattern = ScalarValue::Utf8(Some(strftime(pattern)?));
                        ColumnarValue::Scalar(pattern.cast_to(&value.data_type())?)
                    }
                    _ => continue,
                },
                ColumnarValue::Array(values) => ColumnarValue::Array(all(values)?),
            };
        }
        let promised = arguments.return_type().clone();
        let found = self.inner.inner().invoke_with_args(arguments)?;
        // DataFusion returns times of a text column without the zone of the declared type.
        match found.data_type() == promised {
            true => Ok(found),
            false => found.cast_to(&promised, None),
        }
    }
}

fn all(values: &ArrayRef) -> Result<ArrayRef> {
    if !matches!(values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Ok(values.clone());
    }
    let texts = cast(values, &DataType::Utf8View)?;
    let patterns = texts.as_string_view().iter().map(|text| text.map(strftime).transpose());
    let patterns: ArrayRef = Arc::new(patterns.collect::<std::result::Result<StringViewArray, Error>>()?);
    Ok(cast(&patterns, values.data_type())?)
}

/// PostgreSQL's patterns; a longer one comes before its prefix. `FM` before a pattern removes its padding.
const WORDS: [(&str, &str, &str); 27] = [
    ("IYYY", "%G", "%-G"),
    ("YYYY", "%Y", "%-Y"),
    ("IY", "%g", "%-g"),
    ("YY", "%y", "%-y"),
    ("HH24", "%H", "%-H"),
    ("HH12", "%I", "%-I"),
    ("HH", "%I", "%-I"),
    ("MI", "%M", "%-M"),
    ("MM", "%m", "%-m"),
    ("MS", "%3f", "%3f"),
    ("US", "%6f", "%6f"),
    ("SS", "%S", "%-S"),
    ("DDD", "%j", "%-j"),
    ("DD", "%d", "%-d"),
    ("IW", "%V", "%-V"),
    ("ID", "%u", "%u"),
    ("Month", "", "%B"),
    ("Mon", "%b", "%b"),
    ("Day", "", "%A"),
    ("Dy", "%a", "%a"),
    ("AM", "%p", "%p"),
    ("PM", "%p", "%p"),
    ("am", "%P", "%P"),
    ("pm", "%P", "%P"),
    ("TZH:TZM", "%:z", "%:z"),
    ("OF", "%:z", "%:z"),
    ("TZ", "%Z", "%Z"),
];

/// Converts a pattern of either kind to strftime's.
fn strftime(pattern: &str) -> std::result::Result<String, Error> {
    if pattern.contains('%') {
        return Ok(pattern.to_string());
    }
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut bare = false;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("FM") {
            (bare, rest) = (true, after);
            continue;
        }
        let numeric = |word: &str, with: &str| {
            with.ends_with(|c: char| !matches!(c, 'b' | 'a' | 'p' | 'P')) && !word.is_empty()
        };
        let found = WORDS.iter().find(|(word, padded, _)| {
            rest.starts_with(word)
                || (numeric(word, padded)
                    && rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)))
        });
        match found {
            Some((word, padded, unpadded)) => {
                let with = if bare { unpadded } else { padded };
                if with.is_empty() {
                    return Err(Error::unsupported(format!("{word} in the pattern '{pattern}'"))
                        .hint(format!("Write FM{word}: names are not padded.")));
                }
                out.push_str(with);
                rest = &rest[word.len()..];
            }
            None if c == '"' => {
                let (text, after) = rest[1..].split_once('"').unwrap_or((&rest[1..], ""));
                out.push_str(text);
                rest = after;
            }
            None if c.is_ascii_alphabetic() && c != 'T' => {
                return Err(Error::unsupported(format!("'{rest}' in the pattern '{pattern}'"))
                    .hint("Quote text that stands for itself, as in 'YYYY\"T\"MM', or use a pattern of strftime: '%Y'."));
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        bare = false;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_strftime() {
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS.US", "%Y-%m-%d %H:%M:%S.%6f"),
            ("yyyy/mm/dd", "%Y/%m/%d"),
            ("FMDD.FMMM.YY", "%-d.%-m.%y"),
            ("FMMonth DD, YYYY", "%B %d, %Y"),
            ("Dy HH12:MI am", "%a %I:%M %P"),
            ("YYYY-MM-DD\"T\"HH24", "%Y-%m-%dT%H"),
            ("%d/%m", "%d/%m"),
            ("IYYY-\"W\"IW", "%G-W%V"),
        ] {
            assert_eq!(strftime(pattern).unwrap(), expected, "{pattern}");
        }
        for pattern in ["Month", "Q", "YYYYx"] {
            assert!(strftime(pattern).is_err(), "{pattern}");
        }
    }
}
