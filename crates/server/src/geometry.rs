//! The binary forms of geometric types, whose values are text.

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use bytes::BufMut;

use crate::oid::Kind;
use crate::rows::Writer;
use crate::text;

/// A geometric type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Geometry {
    Point,
    Line,
    Lseg,
    Box,
    Path,
    Polygon,
    Circle,
}

impl Geometry {
    /// Returns the name in PostgreSQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Geometry::Point => "point",
            Geometry::Line => "line",
            Geometry::Lseg => "lseg",
            Geometry::Box => "box",
            Geometry::Path => "path",
            Geometry::Polygon => "polygon",
            Geometry::Circle => "circle",
        }
    }

    /// Returns the bytes of a value; -1 if they vary.
    pub(crate) fn size(self) -> i16 {
        match self {
            Geometry::Point => 16,
            Geometry::Line | Geometry::Circle => 24,
            Geometry::Lseg | Geometry::Box => 32,
            Geometry::Path | Geometry::Polygon => -1,
        }
    }
}

/// Returns a writer of the binary form: the numbers of the text. A path begins with a flag for closed ones, and a path or
/// polygon with the number of its points.
pub(crate) fn writer<'a>(found: Geometry, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    let text = text::writer(&Kind::Geometric(found), array)?;
    Ok(text::reread(text, move |written, out| {
        let is_number = |part: &&str| !part.is_empty();
        let parts = written.split(|c| "()[]<>{},".contains(c)).filter(is_number);
        let numbers: Vec<f64> = parts.filter_map(|part| part.parse().ok()).collect();
        if found == Geometry::Path {
            out.put_u8(u8::from(written.starts_with('(')));
        }
        if matches!(found, Geometry::Path | Geometry::Polygon) {
            out.put_i32(i32::try_from(numbers.len() / 2).unwrap_or(i32::MAX));
        }
        numbers.into_iter().for_each(|number| out.put_f64(number));
    }))
}

/// Returns the text of a binary form.
pub(crate) fn read(found: Geometry, bytes: &[u8]) -> Option<String> {
    let (is_closed, bytes) = match (found, bytes) {
        (Geometry::Path, [closed, rest @ ..]) => (*closed != 0, rest),
        (_, rest) => (true, rest),
    };
    let (count, bytes) = match found {
        Geometry::Path | Geometry::Polygon => {
            let (count, rest) = bytes.split_first_chunk::<4>()?;
            (usize::try_from(u32::from_be_bytes(*count)).ok()?.checked_mul(16)?, rest)
        }
        other => (usize::try_from(other.size()).ok()?, bytes),
    };
    if bytes.len() != count || count == 0 {
        return None;
    }
    let numbers = bytes.chunks_exact(8).filter_map(|raw| Some(f64::from_be_bytes(raw.try_into().ok()?)));
    let numbers: Vec<String> = numbers.map(|number| format!("{number:?}")).collect();
    let points = || {
        let points = numbers.chunks(2).map(|pair| format!("({})", pair.join(",")));
        points.collect::<Vec<_>>().join(",")
    };
    Some(match (found, numbers.as_slice()) {
        (Geometry::Line, _) => format!("{{{}}}", numbers.join(",")),
        (Geometry::Circle, [x, y, radius]) => format!("<({x},{y}),{radius}>"),
        (Geometry::Path | Geometry::Polygon, _) if is_closed => format!("({})", points()),
        (Geometry::Path | Geometry::Lseg, _) => format!("[{}]", points()),
        _ => points(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn binary_forms_are_postgresql_s() {
        let check = |found: Geometry, text: &str, begin: &[u8], numbers: &[f64], read_as: &str| {
            let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
            let mut out = BytesMut::new();
            writer(found, &array).unwrap()(0, &mut out);
            let mut expected = begin.to_vec();
            numbers.iter().for_each(|number| expected.extend(number.to_be_bytes()));
            assert_eq!(&out[..], expected, "{text}");
            assert_eq!(read(found, &out).as_deref(), Some(read_as));
            assert_eq!(read(found, &out[1..]), None);
        };
        check(Geometry::Point, "(1.5,-2)", &[], &[1.5, -2.0], "(1.5,-2.0)");
        check(Geometry::Point, "(Infinity,1e+300)", &[], &[f64::INFINITY, 1e300], "(inf,1e300)");
        check(Geometry::Line, "{1,2,3}", &[], &[1.0, 2.0, 3.0], "{1.0,2.0,3.0}");
        check(Geometry::Lseg, "[(1,2),(3,4)]", &[], &[1.0, 2.0, 3.0, 4.0], "[(1.0,2.0),(3.0,4.0)]");
        check(Geometry::Box, "(3,4),(1,2)", &[], &[3.0, 4.0, 1.0, 2.0], "(3.0,4.0),(1.0,2.0)");
        check(Geometry::Path, "[(1,2)]", &[0, 0, 0, 0, 1], &[1.0, 2.0], "[(1.0,2.0)]");
        check(Geometry::Path, "((1,2))", &[1, 0, 0, 0, 1], &[1.0, 2.0], "((1.0,2.0))");
        check(Geometry::Polygon, "((1,2))", &[0, 0, 0, 1], &[1.0, 2.0], "((1.0,2.0))");
        check(Geometry::Circle, "<(1,2),3>", &[], &[1.0, 2.0, 3.0], "<(1.0,2.0),3.0>");
        assert_eq!(read(Geometry::Polygon, &[0, 0, 0, 0]), None);
        assert_eq!(read(Geometry::Path, &[]), None);
        assert_eq!(read(Geometry::Polygon, &[255; 20]), None);
    }
}
