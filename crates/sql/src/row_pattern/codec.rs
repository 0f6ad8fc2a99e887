//! Encodes a clause for a stored plan, see [`crate::plan_codec`].

use arrow::compute::SortOptions;
use datafusion::logical_expr::AggregateUDF;
use serde_json::{Value, json};

use super::clause::{Asked, Planned, Shows, Skip};
use super::function::function;
use super::pattern::{MatchedRow, Program, Step};
use super::terms::{RowPosition, Rows, Term};
use crate::plan_codec::{CodecResult, PlanDecoder, PlanEncoder, flag, list, member, number, numbers, text};

impl Planned {
    /// Encodes the clause. Its expressions and columns are stored beside it.
    pub(crate) fn to_json(&self, writer: &mut PlanEncoder<'_>) -> CodecResult<Value> {
        let columns = writer.columns(&self.columns);
        let mut order = Vec::with_capacity(self.order.len());
        for (key, options) in &self.order {
            order.push(json!([writer.expression(key)?, options.descending, options.nulls_first]));
        }
        let (values, calls) = (writer.expressions(&self.values)?, writer.expressions(&self.calls)?);
        let mut conditions = Vec::with_capacity(self.conditions.len());
        for condition in &self.conditions {
            conditions.push(condition.as_ref().map(|asked| asked.to_json(writer)).transpose()?);
        }
        let mut measures = Vec::with_capacity(self.measures.len());
        for (name, asked) in &self.measures {
            measures.push(json!([name, asked.to_json(writer)?]));
        }
        let steps: Vec<Value> = self.program.steps.iter().map(step).collect();
        Ok(json!({
            "text": self.text, "columns": columns, "shown": self.shown, "order": order, "values": values,
            "calls": calls, "variables": self.program.variables, "steps": steps, "conditions": conditions,
            "measures": measures, "shows": shows(self.shows), "skip": skip(&self.skip), "within": self.within,
        }))
    }

    /// Decodes the function of a clause.
    pub(crate) fn read(written: &Value, reader: &mut PlanDecoder<'_>) -> CodecResult<AggregateUDF> {
        let columns = reader.columns(written.get("columns"))?;
        let key = |key: &Value| {
            let options = SortOptions { descending: flag(key.get(1))?, nulls_first: flag(key.get(2))? };
            Ok((reader.expression(key.get(0))?, options))
        };
        let order = list(written.get("order"), key)?;
        let values = reader.expressions(written.get("values"))?;
        let calls = reader.expressions(written.get("calls"))?;
        let condition = |of: &Value| match of {
            Value::Null => Ok(None),
            of => Asked::read(of, reader).map(Some),
        };
        let conditions = list(written.get("conditions"), condition)?;
        let measure = |of: &Value| Ok((name(of.get(0))?, Asked::read(of.get(1).unwrap_or(of), reader)?));
        let measures = list(written.get("measures"), measure)?;
        let planned = Planned {
            text: text(written, "text")?.into(),
            columns,
            shown: numbers(written.get("shown"))?,
            order,
            program: Program {
                steps: list(written.get("steps"), read_step)?,
                variables: list(written.get("variables"), |of| name(Some(of)))?,
            },
            conditions,
            values,
            calls,
            measures,
            shows: read_shows(member(written, "shows")?)?,
            skip: read_skip(member(written, "skip")?)?,
            within: match member(written, "within")? {
                Value::Null => None,
                of => Some((number(of.get(0))?, number(of.get(1))?)),
            },
        };
        planned.check()?;
        planned.ready(reader.planner).map(function).map_err(|error| error.message)
    }

    /// Fails if an index is out of range: running the clause relies on valid ones.
    fn check(&self) -> CodecResult<()> {
        let Program { steps, variables } = &self.program;
        let (values, calls) = (self.values.len(), self.calls.len());
        let are_variables = |all: &[usize]| all.iter().all(|at| *at < variables.len());
        let are_rows = |rows: &Rows| rows.among.as_deref().is_none_or(are_variables);
        let is_step = |step: &Step| match step {
            Step::Row(taken) => taken.variable < variables.len(),
            Step::Either(first, second) => *first < steps.len() && *second < steps.len(),
            Step::Jump(to) => *to < steps.len(),
            Step::Start | Step::End | Step::Found => true,
        };
        let is_term = |term: &Term| match term {
            Term::Value(value, place) => *value < values && are_rows(&place.rows),
            Term::Classifier(place) => are_rows(&place.rows),
            Term::Number => true,
            Term::Aggregate(call, rows) => *call < calls && are_rows(rows),
        };
        let asked = self.conditions.iter().flatten().chain(self.measures.iter().map(|(_, asked)| asked));
        let are_asked = asked
            .into_iter()
            .all(|of| of.terms.len() == of.columns.fields().len() && of.terms.iter().all(is_term));
        let skips = match &self.skip {
            Skip::PastLastRow | Skip::ToNextRow => true,
            Skip::ToFirst(_, among) | Skip::ToLast(_, among) => are_variables(among),
        };
        let is_whole = steps.iter().all(is_step)
            && steps.last() == Some(&Step::Found)
            && self.conditions.len() == variables.len()
            && are_asked
            && skips
            && self.within.is_none_or(|(time, end)| time < values && end < values)
            && self.shown.iter().all(|at| *at < self.columns.fields().len());
        if is_whole { Ok(()) } else { Err("a pattern names what isn't there".into()) }
    }
}

impl Asked {
    fn to_json(&self, writer: &mut PlanEncoder<'_>) -> CodecResult<Value> {
        let terms: Vec<Value> = self.terms.iter().map(term).collect();
        Ok(json!({
            "name": self.name, "terms": terms, "columns": writer.columns(&self.columns),
            "of": writer.expression(&self.expr)?,
        }))
    }

    fn read(written: &Value, reader: &mut PlanDecoder<'_>) -> CodecResult<Asked> {
        Ok(Asked {
            name: text(written, "name")?.into(),
            terms: list(written.get("terms"), read_term)?,
            columns: reader.columns(written.get("columns"))?,
            expr: reader.expression(written.get("of"))?,
        })
    }
}

fn step(step: &Step) -> Value {
    match step {
        Step::Row(MatchedRow { variable, excluded }) => json!(["row", variable, excluded]),
        Step::Either(first, second) => json!(["either", first, second]),
        Step::Jump(to) => json!(["jump", to]),
        Step::Start => json!(["start"]),
        Step::End => json!(["end"]),
        Step::Found => json!(["found"]),
    }
}

fn read_step(of: &Value) -> CodecResult<Step> {
    Ok(match word(of) {
        "row" => Step::Row(MatchedRow { variable: number(of.get(1))?, excluded: flag(of.get(2))? }),
        "either" => Step::Either(number(of.get(1))?, number(of.get(2))?),
        "jump" => Step::Jump(number(of.get(1))?),
        "start" => Step::Start,
        "end" => Step::End,
        "found" => Step::Found,
        _ => return Err("a step of a pattern is unknown".into()),
    })
}

fn term(term: &Term) -> Value {
    match term {
        Term::Value(value, of) => json!(["value", value, place(of)]),
        Term::Classifier(of) => json!(["classifier", place(of)]),
        Term::Number => json!(["number"]),
        Term::Aggregate(call, of) => json!(["aggregate", call, rows(of)]),
    }
}

fn read_term(of: &Value) -> CodecResult<Term> {
    Ok(match word(of) {
        "value" => Term::Value(number(of.get(1))?, read_place(of.get(2))?),
        "classifier" => Term::Classifier(read_place(of.get(1))?),
        "number" => Term::Number,
        "aggregate" => Term::Aggregate(number(of.get(1))?, read_rows(of.get(2))?),
        _ => return Err("what a pattern takes from a match is unknown".into()),
    })
}

fn rows(of: &Rows) -> Value {
    json!([of.among, of.whole])
}

fn read_rows(of: Option<&Value>) -> CodecResult<Rows> {
    let of = of.ok_or("the rows of a match are missing")?;
    let among = match of.get(0) {
        None | Some(Value::Null) => None,
        all => Some(numbers(all)?),
    };
    Ok(Rows { among, whole: flag(of.get(1))? })
}

fn place(of: &RowPosition) -> Value {
    json!({"rows": rows(&of.rows), "last": of.last, "skip": of.skip, "shift": of.shift})
}

fn read_place(of: Option<&Value>) -> CodecResult<RowPosition> {
    let of = of.ok_or("the row of a match is missing")?;
    let shift = member(of, "shift")?.as_i64().ok_or("'shift' is no number")?;
    Ok(RowPosition {
        rows: read_rows(of.get("rows"))?,
        last: flag(of.get("last"))?,
        skip: number(of.get("skip"))?,
        shift,
    })
}

fn shows(of: Shows) -> Value {
    match of {
        Shows::OneRow => json!(["one"]),
        Shows::AllRows { empty, unmatched } => json!(["all", empty, unmatched]),
    }
}

fn read_shows(of: &Value) -> CodecResult<Shows> {
    match word(of) {
        "one" => Ok(Shows::OneRow),
        "all" => Ok(Shows::AllRows { empty: flag(of.get(1))?, unmatched: flag(of.get(2))? }),
        _ => Err("what is shown of matches is unknown".into()),
    }
}

fn skip(of: &Skip) -> Value {
    match of {
        Skip::PastLastRow => json!(["past"]),
        Skip::ToNextRow => json!(["next"]),
        Skip::ToFirst(name, among) => json!(["first", name, among]),
        Skip::ToLast(name, among) => json!(["last", name, among]),
    }
}

fn read_skip(of: &Value) -> CodecResult<Skip> {
    Ok(match word(of) {
        "past" => Skip::PastLastRow,
        "next" => Skip::ToNextRow,
        "first" => Skip::ToFirst(name(of.get(1))?, numbers(of.get(2))?),
        "last" => Skip::ToLast(name(of.get(1))?, numbers(of.get(2))?),
        _ => return Err("where a search goes on is unknown".into()),
    })
}

fn word(of: &Value) -> &str {
    of.get(0).and_then(Value::as_str).unwrap_or_default()
}

fn name(of: Option<&Value>) -> CodecResult<String> {
    of.and_then(Value::as_str).map(str::to_string).ok_or_else(|| "a name is no text".into())
}
