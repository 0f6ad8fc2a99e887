//! Forms for BYTEA of functions that DataFusion has for text: `substr`, `strpos`, `overlay`, `btrim` and others; and, as in
//! Spark, `lpad`, `rpad`, `starts_with` and `ends_with`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::types::{NativeType, logical_binary, logical_int64, logical_string};
use datafusion::error::Result;
use datafusion::functions::core::overlay::OverlayFunc;
use datafusion::functions::string::bit_length::BitLengthFunc;
use datafusion::functions::string::btrim::BTrimFunc;
use datafusion::functions::string::ends_with::EndsWithFunc;
use datafusion::functions::string::ltrim::LtrimFunc;
use datafusion::functions::string::rtrim::RtrimFunc;
use datafusion::functions::string::starts_with::StartsWithFunc;
use datafusion::functions::unicode::strpos::StrposFunc;
use datafusion::functions::unicode::substr::SubstrFunc;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TypeSignature, TypeSignatureClass, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::byte_strings::Bytes;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::value_size_limit::{check_column, check_value};
use crate::sqlstate;

/// Wraps DataFusion's functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.replace("substr", |f| f.inner().is::<SubstrFunc>(), |f| wrapped(f, Form::Substr));
    registry.replace("strpos", |f| f.inner().is::<StrposFunc>(), |f| wrapped(f, Form::Position));
    registry.replace("overlay", |f| f.inner().is::<OverlayFunc>(), |f| wrapped(f, Form::Overlay));
    registry.replace("btrim", |f| f.inner().is::<BTrimFunc>(), |f| wrapped(f, Form::Trim(true, true)));
    registry.replace("ltrim", |f| f.inner().is::<LtrimFunc>(), |f| wrapped(f, Form::Trim(true, false)));
    registry.replace("rtrim", |f| f.inner().is::<RtrimFunc>(), |f| wrapped(f, Form::Trim(false, true)));
    // Of these, the file `value_size_limit` has wrapped some before.
    registry.replace("lpad", |f| f.name() == "lpad", |f| wrapped(f, Form::Pad(true)));
    registry.replace("rpad", |f| f.name() == "rpad", |f| wrapped(f, Form::Pad(false)));
    registry.replace("starts_with", |f| f.inner().is::<StartsWithFunc>(), |f| wrapped(f, Form::Begins(true)));
    registry.replace("ends_with", |f| f.inner().is::<EndsWithFunc>(), |f| wrapped(f, Form::Begins(false)));
    registry.replace("bit_length", |f| f.inner().is::<BitLengthFunc>(), |f| wrapped(f, Form::BitLength));
}

/// The function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Substr,
    Position,
    Overlay,
    /// True for each side that is trimmed.
    Trim(bool, bool),
    /// True if the left side is filled up.
    Pad(bool),
    /// True for the beginning, false for the end.
    Begins(bool),
    BitLength,
}

impl Form {
    /// Returns the arguments: true for bytes, false for a number.
    fn arguments(self) -> &'static [&'static [bool]] {
        match self {
            Form::Substr => &[&[true, false], &[true, false, false]],
            Form::Position => &[&[true, true]],
            Form::Overlay => &[&[true, true, false], &[true, true, false, false]],
            Form::Pad(_) => &[&[true, false], &[true, false, true]],
            Form::Trim(..) | Form::Begins(_) => &[&[true, true]],
            Form::BitLength => &[&[true]],
        }
    }

    fn result(self) -> DataType {
        match self {
            Form::Begins(_) => DataType::Boolean,
            Form::Position | Form::BitLength => DataType::Int32,
            _ => DataType::Binary,
        }
    }
}

fn wrapped(inner: Arc<ScalarUDF>, form: Form) -> ScalarUDF {
    let coercion = |bytes: bool, is_text: bool| match bytes {
        true if is_text => Coercion::new_exact(TypeSignatureClass::Native(logical_string())),
        true => Coercion::new_exact(TypeSignatureClass::Native(logical_binary())),
        false => Coercion::new_implicit(
            TypeSignatureClass::Native(logical_int64()),
            vec![TypeSignatureClass::Integer],
            NativeType::Int64,
        ),
    };
    let mut forms = match &inner.signature().type_signature {
        TypeSignature::OneOf(forms) => forms.clone(),
        other => vec![other.clone()],
    };
    // Beside bytes, a text stands for the bytes that it spells.
    for text in [None, Some(1), Some(0)] {
        for arguments in form.arguments() {
            if text.is_none() || arguments.get(1) == Some(&true) {
                let coercions = arguments.iter().enumerate();
                let coercions = coercions.map(|(place, bytes)| coercion(*bytes, text == Some(place)));
                forms.push(TypeSignature::Coercible(coercions.collect()));
            }
        }
    }
    ScalarUDF::from(ByteForm { inner, form, signature: Signature::one_of(forms, Volatility::Immutable) })
}

/// DataFusion's function of text, with a form for bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ByteForm {
    inner: Arc<ScalarUDF>,
    form: Form,
    signature: Signature,
}

impl ScalarUDFImpl for ByteForm {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.iter().any(DataType::is_binary) {
            true => Ok(self.form.result()),
            false => self.inner.inner().return_type(arguments),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        match arguments.arg_fields.iter().any(|field| field.data_type().is_binary()) {
            true => Ok(Arc::new(Field::new(self.name(), self.form.result(), true))),
            false => self.inner.inner().return_field_from_args(arguments),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !arguments.args.iter().any(|argument| argument.data_type().is_binary()) {
            return self.inner.inner().invoke_with_args(arguments);
        }
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { arguments.number_rows };
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows));
        let result = evaluate(self.form, &columns.collect::<Result<Vec<_>>>()?)?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let is_text = match arguments.first() {
            Some(first) => context.get_data_type(first)?.is_string(),
            None => false,
        };
        match self.form {
            Form::Begins(_) if is_text => self.inner.inner().simplify(arguments, context),
            _ => Ok(ExprSimplifyResult::Original(arguments)),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

fn evaluate(form: Form, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let convert = |column: &ArrayRef| match column.data_type().is_integer() {
        true => Ok(cast(column, &DataType::Int64)?),
        false => Ok(Bytes::new(column)?.values),
    };
    let columns: Vec<ArrayRef> = columns.iter().map(convert).collect::<Result<_>>()?;
    let rows = columns.first().map_or(0, |column| column.len());
    let is_valid = |row: usize| columns.iter().all(|column| column.is_valid(row));
    let bytes = |at: usize, row: usize| columns[at].as_binary::<i64>().value(row);
    let number =
        |at: usize, row: usize| columns.get(at).map(|column| column.as_primitive::<Int64Type>().value(row));
    if let Form::Begins(begins) = form {
        let found = (0..rows).map(|row| {
            is_valid(row).then(|| match begins {
                true => bytes(0, row).starts_with(bytes(1, row)),
                false => bytes(0, row).ends_with(bytes(1, row)),
            })
        });
        return Ok(Arc::new(found.collect::<BooleanArray>()));
    }
    if form.result() == DataType::Int32 {
        let counts = (0..rows).map(|row| {
            is_valid(row).then(|| match form {
                Form::BitLength => i32::try_from(bytes(0, row).len() * 8).unwrap_or(i32::MAX),
                _ => position(bytes(0, row), bytes(1, row)),
            })
        });
        return Ok(Arc::new(counts.collect::<Int32Array>()));
    }
    let mut out = BinaryBuilder::new();
    for row in 0..rows {
        if !is_valid(row) {
            out.append_null();
            continue;
        }
        match form {
            Form::Substr => {
                out.append_value(part(bytes(0, row), number(1, row).unwrap_or(1), number(2, row))?)
            }
            Form::Overlay => {
                let (text, new, from) = (bytes(0, row), bytes(1, row), number(2, row).unwrap_or(1));
                let count = number(3, row).unwrap_or_else(|| i64::try_from(new.len()).unwrap_or(i64::MAX));
                let whole = overlaid(text, new, from, count)?;
                check_column("overlay", out.values_slice().len(), whole.len())?;
                out.append_value(whole);
            }
            Form::Pad(left) => {
                let fill = columns.get(2).map_or(&[0_u8][..], |_| bytes(2, row));
                let padded = padded(bytes(0, row), number(1, row).unwrap_or(0), fill, left)?;
                check_column("lpad", out.values_slice().len(), padded.len())?;
                out.append_value(padded);
            }
            Form::Trim(left, right) => out.append_value(trimmed(bytes(0, row), bytes(1, row), left, right)),
            _ => return Err(Error::bug("the function returns bytes").into()),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Fills bytes up to a length, or cuts them. Nothing is added if the filling is empty.
fn padded(text: &[u8], length: i64, fill: &[u8], left: bool) -> Result<Vec<u8>, Error> {
    let length = usize::try_from(length).unwrap_or(0);
    check_value("lpad", length)?;
    let missing = length.saturating_sub(text.len());
    let added: Vec<u8> = fill.iter().copied().cycle().take(missing).collect();
    let text = &text[..text.len().min(length)];
    Ok(if left { [&added, text].concat() } else { [text, &added].concat() })
}

/// Returns the place of bytes within others, from 1; 0 if they aren't there.
fn position(text: &[u8], part: &[u8]) -> i32 {
    let place = match part.is_empty() {
        true => Some(0),
        false => text.windows(part.len()).position(|window| window == part),
    };
    place.and_then(|place| i32::try_from(place + 1).ok()).unwrap_or(0)
}

/// Returns a part of bytes. It may begin before the first one, which shortens it.
fn part(text: &[u8], start: i64, count: Option<i64>) -> Result<&[u8], Error> {
    if count.is_some_and(|count| count < 0) {
        return Err(Error::invalid("negative substring length not allowed").code(sqlstate::DATA_EXCEPTION));
    }
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let end = count.map_or(length, |count| start.saturating_add(count).saturating_sub(1).clamp(0, length));
    let from = start.saturating_sub(1).clamp(0, length).min(end);
    let place = |at: i64| usize::try_from(at).unwrap_or(0);
    Ok(&text[place(from)..place(end)])
}

fn overlaid(text: &[u8], new: &[u8], from: i64, count: i64) -> Result<Vec<u8>, Error> {
    if from <= 0 {
        return Err(Error::invalid("negative substring length not allowed").code(sqlstate::DATA_EXCEPTION));
    }
    let mut out = part(text, 1, Some(from - 1))?.to_vec();
    out.extend_from_slice(new);
    out.extend_from_slice(part(text, from.saturating_add(count), None)?);
    Ok(out)
}

fn trimmed<'a>(text: &'a [u8], set: &[u8], left: bool, right: bool) -> &'a [u8] {
    let mut rest = text;
    while let [first, after @ ..] = rest
        && left
        && set.contains(first)
    {
        rest = after;
    }
    while let [before @ .., last] = rest
        && right
        && set.contains(last)
    {
        rest = before;
    }
    rest
}
