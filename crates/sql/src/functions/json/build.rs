//! Functions that build JSON from values: `to_json`, `json_build_object` and others.
//!
//! Text that is JSON by its type is inserted as it is; any other text becomes a string. The types are known while a
//! statement is planned. So the planner resolves a call of [`Written`] and replaces it by a call of [`Built`], whose
//! first argument says which of the others are JSON. The rule is in `rules/marked_types.rs`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility, lit,
};

use super::constructors;
use super::encode::{Writer, elements_writer, members_writer, writer};
use super::value::{canonical, quote};
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::marks::Mark;
use crate::functions::marks::shape::Shape;

/// The form of the JSON that a function builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// The JSON of one value. A second argument, if it is true, puts each part on a line of its own.
    Value,
    Array,
    /// An object of alternating names and values.
    Object,
    /// The same of the values that aren't NULL.
    PresentArray,
    PresentObject,
    /// The elements of an array that an aggregate collected.
    Elements,
    /// The members that an aggregate collected as an array of names and values.
    Members,
}

const FORMS: [(Form, char); 7] = [
    (Form::Value, 'v'),
    (Form::Array, 'a'),
    (Form::Object, 'o'),
    (Form::PresentArray, 'p'),
    (Form::PresentObject, 'q'),
    (Form::Elements, 'e'),
    (Form::Members, 'm'),
];

/// A function as statements name it. It can't be evaluated.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Written {
    name: &'static str,
    form: Form,
    pub(crate) mark: Mark,
    signature: Signature,
}

static WRITTEN: LazyLock<HashMap<&'static str, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let all = [
        ("to_json", Form::Value, Mark::Json),
        ("to_jsonb", Form::Value, Mark::Jsonb),
        ("row_to_json", Form::Value, Mark::Json),
        ("array_to_json", Form::Value, Mark::Json),
        ("json_build_array", Form::Array, Mark::Json),
        ("jsonb_build_array", Form::Array, Mark::Jsonb),
        ("json_build_object", Form::Object, Mark::Json),
        ("jsonb_build_object", Form::Object, Mark::Jsonb),
        ("json_array_of", Form::Array, Mark::Json),
        ("json_array_present_of", Form::PresentArray, Mark::Json),
        ("json_object_of", Form::Object, Mark::Json),
        ("json_object_present_of", Form::PresentObject, Mark::Json),
        ("json_agg_of", Form::Elements, Mark::Json),
        ("jsonb_agg_of", Form::Elements, Mark::Jsonb),
        ("json_object_agg_of", Form::Members, Mark::Json),
        ("jsonb_object_agg_of", Form::Members, Mark::Jsonb),
    ];
    let written = |(name, form, mark)| {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        let signature = Signature::one_of(any, Volatility::Immutable);
        (name, Arc::new(ScalarUDF::from(Written { name, form, mark, signature })))
    };
    all.into_iter().map(written).collect()
});

/// Returns the function of this name that the rewriting of syntax trees calls.
pub(crate) fn unregistered(name: &str) -> Option<Arc<ScalarUDF>> {
    WRITTEN.get(name).filter(|_| name.ends_with("_of")).cloned()
}

/// Returns the function that a statement's call means: not the one of its name that stored plans have.
pub(crate) fn written_instead(registered: &Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match WRITTEN.get(registered.name()) {
        Some(written) if constructors::is_stored(registered) => Arc::clone(written),
        _ => Arc::clone(registered),
    }
}

impl Written {
    /// Builds the call that computes a call of this function.
    pub(crate) fn resolved(&self, mut arguments: Vec<Expr>, shapes: &[Shape]) -> Expr {
        let form = FORMS.iter().find(|(form, _)| *form == self.form).map_or('v', |(_, letter)| *letter);
        let mut spec = String::from(form);
        shapes.iter().for_each(|shape| shape.encode(&mut spec));
        // The name appears in messages.
        arguments.insert(0, lit(format!("{} {spec}", self.name)));
        Built::function(self.mark).call(arguments)
    }

    fn check(&self, count: usize) -> Result<()> {
        let takes = |wanted: &str| Err(Error::invalid(format!("{} takes {wanted}", self.name)).into());
        match self.form {
            Form::Value if !(1..=2).contains(&count) => takes("one value"),
            Form::Value if count == 2 && self.name.starts_with("to_") => takes("one value"),
            Form::Elements | Form::Members if count != 1 => takes("one value"),
            Form::Object | Form::PresentObject if count % 2 == 1 => takes("alternating keys and values"),
            _ => Ok(()),
        }
    }
}

impl ScalarUDFImpl for Written {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.check(arguments.len())?;
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.check(arguments.arg_fields.len())?;
        Ok(Arc::new(self.mark.put(Field::new(self.name, DataType::Utf8View, true))))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::bug(format!("{} was not resolved", self.name)).into())
    }
}

/// Builds JSON. The first argument is the name of the function as written, the letter of the form, and the shape of
/// each other argument.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Built {
    pub(crate) mark: Mark,
    signature: Signature,
}

impl Built {
    fn function(mark: Mark) -> ScalarUDF {
        ScalarUDF::from(Built { mark, signature: Signature::user_defined(Volatility::Immutable) })
    }

    fn compute(&self, spec: &str, columns: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
        let wrong = || Error::bug(format!("{}: the shape '{spec}' can't be read", self.name()));
        let (name, spec) = spec.split_once(' ').ok_or_else(wrong)?;
        let mut letters = spec.chars();
        let letter = letters.next();
        let form = FORMS.iter().find(|(_, known)| Some(*known) == letter).map(|(form, _)| *form);
        let form = form.ok_or_else(wrong)?;
        let mut parts = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            let shape = Shape::decode(&mut letters).ok_or_else(wrong)?;
            let is_object = matches!(form, Form::Object | Form::PresentObject);
            let is_plain = (is_object && at % 2 == 0) || (form == Form::Value && at == 1);
            parts.push(match form {
                _ if is_plain => Part::plain(column)?,
                Form::Elements => Part::Json(elements_writer(column, &shape)?),
                Form::Members => Part::Json(members_writer(column, &shape, name)?),
                _ => Part::Json(writer(column, &shape)?),
            });
        }
        let mut out = StringViewBuilder::with_capacity(rows);
        let mut text = String::new();
        for row in 0..rows {
            text.clear();
            let is_strict = matches!(form, Form::Value | Form::Elements | Form::Members);
            if is_strict && columns.first().is_some_and(|column| is_null(column, row)) {
                out.append_null();
                continue;
            }
            let is_null = |at: usize| is_null(&columns[at], row);
            write(name, form, &parts, row, &is_null, &mut text)?;
            match self.mark {
                Mark::Jsonb => out.append_value(canonical(&text)?),
                _ => out.append_value(&text),
            }
        }
        Ok(Arc::new(out.finish()))
    }
}

/// True if a value is NULL, whatever the layout of its column.
pub(super) fn is_null(column: &ArrayRef, row: usize) -> bool {
    column.data_type().is_null() || column.logical_nulls().is_some_and(|nulls| nulls.is_null(row))
}

/// An argument.
enum Part {
    Json(Writer),
    /// A member's name, or a flag as text.
    Plain(ArrayRef),
}

impl Part {
    fn plain(column: &ArrayRef) -> Result<Part> {
        Ok(Part::Plain(cast(&crate::functions::time_text::with_texts(column)?, &DataType::Utf8View)?))
    }

    fn text(&self, row: usize) -> Option<&str> {
        let Part::Plain(texts) = self else { return None };
        let texts = texts.as_string_view_opt()?;
        texts.is_valid(row).then(|| texts.value(row))
    }

    fn write(&self, row: usize, out: &mut String) {
        if let Part::Json(write) = self {
            write(row, out);
        }
    }
}

/// Writes the JSON of a row. `is_null` tells if an argument is NULL.
fn write(
    name: &str,
    form: Form,
    parts: &[Part],
    row: usize,
    is_null: &dyn Fn(usize) -> bool,
    out: &mut String,
) -> Result<()> {
    match form {
        Form::Value => {
            let start = out.len();
            parts.iter().take(1).for_each(|part| part.write(row, out));
            if parts.get(1).and_then(|flag| flag.text(row)) == Some("true") {
                *out = in_lines(&out[start..]);
            }
        }
        Form::Elements | Form::Members => parts.iter().for_each(|part| part.write(row, out)),
        Form::Array | Form::PresentArray => {
            out.push('[');
            for (at, part) in parts.iter().enumerate() {
                if form == Form::PresentArray && is_null(at) {
                    continue;
                }
                out.push_str(if out.len() > 1 { ", " } else { "" });
                part.write(row, out);
            }
            out.push(']');
        }
        Form::Object | Form::PresentObject => {
            out.push('{');
            for (at, pair) in parts.chunks(2).enumerate() {
                if form == Form::PresentObject && is_null(2 * at + 1) {
                    continue;
                }
                let [key, value] = pair else { break };
                let Some(key) = key.text(row) else {
                    let message = format!("{name}: argument {}: key must not be null", 2 * at + 1);
                    return Err(Error::invalid(message).hint("Object keys should be text.").into());
                };
                out.push_str(if out.len() > 1 { ", " } else { "" });
                quote(key, out);
                out.push_str(" : ");
                value.write(row, out);
            }
            out.push('}');
        }
    }
    Ok(())
}

/// Puts each part of an array or object on a line of its own.
fn in_lines(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for c in json.chars() {
        out.push(c);
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 1 => out.push_str("\n "),
            _ => {}
        }
    }
    out
}

impl ScalarUDFImpl for Built {
    fn name(&self) -> &str {
        match self.mark {
            Mark::Jsonb => "jsonb_built",
            _ => "json_built",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        Ok(found.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.mark.put(Field::new(self.name(), DataType::Utf8View, true))))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { arguments.number_rows };
        let mut values = arguments.args.into_iter();
        let spec = match values.next() {
            Some(ColumnarValue::Scalar(spec)) => spec,
            Some(ColumnarValue::Array(specs)) if !specs.is_empty() => ScalarValue::try_from_array(&specs, 0)?,
            _ => return Ok(ColumnarValue::Array(Arc::new(StringViewBuilder::new().finish()))),
        };
        let columns = values.map(|value| value.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let spec = spec.try_as_str().flatten().unwrap_or_default();
        let built = self.compute(spec, columns, rows)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&built, 0)?),
            false => ColumnarValue::Array(built),
        })
    }
}

/// Registers the functions that calls are replaced by.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add(Built::function(Mark::Json));
    registry.add(Built::function(Mark::Jsonb));
}
