//! The connector `print`: shows the first rows of each batch to people.

use std::fmt;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use millstream_delta::{Cut, Delta, Epoch};

use crate::{Connector, Error, OptionDoc, Result, Sink, SinkSpec};

/// Default number of rows printed of a batch.
const LIMIT: usize = 10;

const RULE: &str = "-------------------------------------------";

/// Prints the first rows of each batch under its time, as Spark Streaming's `print` does.
#[derive(Clone, Default)]
pub struct Print {
    /// The output; `None` is standard output.
    out: Option<Arc<Mutex<dyn Write + Send>>>,
}

impl Print {
    /// Creates a connector that prints to `out` instead of standard output.
    pub fn to(out: impl Write + Send + 'static) -> Print {
        Print { out: Some(Arc::new(Mutex::new(out))) }
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Print").finish_non_exhaustive()
    }
}

impl Connector for Print {
    fn name(&self) -> &'static str {
        "print"
    }

    fn summary(&self) -> &'static str {
        "Prints the first rows of each batch under the batch's time."
    }

    fn sink_options(&self) -> &'static [OptionDoc] {
        &[
            OptionDoc {
                name: "limit",
                default: Some("10"),
                doc: "The number of rows of a batch to print; '...' stands for the rest. For a relation \
                  whose rows change, + marks inserted rows and - deleted rows.",
            },
            OptionDoc {
                name: "style",
                default: Some("plain"),
                doc: "plain; or spark: as print() of Spark Streaming: a batch of a query FOR EACH BATCH is printed also where it \
                  has no rows, and NULL is written null.",
            },
        ]
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        let limit = spec.options.parse("limit", "a number of rows")?.unwrap_or(LIMIT);
        Ok(Box::new(PrintSink {
            name: spec.name.clone(),
            out: self.out.clone(),
            limit,
            signed: !spec.append_only,
            spark: spec.options.choice("style", &["plain", "spark"])? == "spark",
            last: Epoch(0),
        }))
    }
}

struct PrintSink {
    name: String,
    out: Option<Arc<Mutex<dyn Write + Send>>>,
    limit: usize,
    /// True if rows have the prefix + or -.
    signed: bool,
    /// True if the output has the format of Spark Streaming.
    spark: bool,
    last: Epoch,
}

impl PrintSink {
    fn render(&self, cut: &Cut, delta: &Delta) -> Result<String> {
        let mut text = format!("{RULE}\nTime: {} ms\n{RULE}\n", cut.now.millis());
        let mut left = self.limit;
        'delta: for chunk in &delta.chunks {
            let columns =
                formatters(&chunk.rows, self.spark).map_err(|error| Error::Bug(error.to_string()))?;
            for row in 0..chunk.rows.num_rows() {
                let weight = chunk.weight(row);
                let sign = match (self.signed, weight < 0) {
                    (false, _) => "",
                    (true, false) => "+",
                    (true, true) => "-",
                };
                if weight == 0 {
                    continue;
                }
                if left == 0 {
                    text.push_str("...\n");
                    break 'delta;
                }
                let begin = text.len() + sign.len();
                render_row(&columns, sign, row, &mut text).map_err(|error| Error::Bug(error.to_string()))?;
                let line = begin..text.len() - 1;
                let copies = usize::try_from(weight.unsigned_abs()).unwrap_or(usize::MAX);
                for _ in 1..copies.min(left) {
                    text.push_str(sign);
                    text.extend_from_within(line.clone());
                    text.push('\n');
                }
                if copies > left {
                    text.push_str("...\n");
                    break 'delta;
                }
                left -= copies;
            }
        }
        text.push('\n');
        Ok(text)
    }
}

/// Returns a formatter for each column.
fn formatters(rows: &RecordBatch, spark: bool) -> Result<Vec<ArrayFormatter<'_>>, ArrowError> {
    let options = FormatOptions::default().with_null(if spark { "null" } else { "NULL" });
    rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect()
}

/// Appends the line of a row: `(a,b)`, or the value alone if there is one column.
fn render_row(
    columns: &[ArrayFormatter<'_>],
    sign: &str,
    row: usize,
    text: &mut String,
) -> Result<(), ArrowError> {
    text.push_str(sign);
    let several = columns.len() != 1;
    if several {
        text.push('(');
    }
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        // Writing to a string fails only if a value has no text form.
        write!(text, "{}", column.value(row))
            .map_err(|_| ArrowError::CastError("a value can't be shown as text".into()))?;
    }
    text.push_str(if several { ")\n" } else { "\n" });
    Ok(())
}

#[async_trait]
impl Sink for PrintSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        let text = self.render(cut, delta)?;
        let written = match &self.out {
            Some(out) => {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
        };
        self.last = cut.epoch;
        written.map_err(|error| Error::External(format!("sink '{}' could not print: {error}", self.name)))
    }

    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        Ok(through)
    }

    async fn recover(&mut self) -> Result<Epoch> {
        Ok(self.last)
    }

    fn takes_empty_batches(&self) -> bool {
        self.spark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use millstream_delta::{Chunk, Timestamp};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn printed(words: &[&str], counts: Option<Vec<i64>>, weights: Option<Vec<i64>>, limit: &str) -> String {
        styled(words, counts, weights, &[("limit", limit)])
    }

    fn styled(
        words: &[&str],
        counts: Option<Vec<i64>>,
        weights: Option<Vec<i64>>,
        options: &[(&str, &str)],
    ) -> String {
        let mut fields = vec![Field::new("word", DataType::Utf8View, true)];
        let mut columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(StringViewArray::from_iter_values(words.iter().copied()))];
        if let Some(counts) = counts {
            fields.push(Field::new("count", DataType::Int64, true));
            columns.push(Arc::new(Int64Array::from(counts)));
        }
        let schema = Arc::new(Schema::new(fields));
        let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let page = Page::default();
        let spec = SinkSpec {
            name: "p".into(),
            columns: schema,
            append_only: weights.is_none(),
            key: None,
            auto_pace: false,
            options: Options(
                options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            ),
        };
        let mut sink = Print::to(page.clone()).sink(&spec).unwrap();
        let cut = Cut::new(Epoch(1), Timestamp(1_357_008_430_000_000));
        let delta = Delta::of(Chunk { rows, weights: weights.map(Int64Array::from) });
        block_on(sink.write(&cut, &delta)).unwrap();
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn under_its_time(rows: &str) -> String {
        format!("{RULE}\nTime: 1357008430000 ms\n{RULE}\n{rows}\n")
    }

    #[test]
    fn rows_stand_under_their_time() {
        let text = printed(&["a", "b"], Some(vec![1, 2]), None, "10");
        assert_eq!(text, under_its_time("(a,1)\n(b,2)\n"));
        assert_eq!(printed(&["a", "b", "c"], None, None, "2"), under_its_time("a\nb\n...\n"));
        assert_eq!(printed(&["a", "b"], None, None, "2"), under_its_time("a\nb\n"));
    }

    #[test]
    fn changes_are_signed_and_copies_written_out() {
        let text = printed(&["a", "b", "c"], Some(vec![1, 2, 3]), Some(vec![-1, 0, 2]), "10");
        assert_eq!(text, under_its_time("-(a,1)\n+(c,3)\n+(c,3)\n"));
        assert_eq!(printed(&["a"], None, Some(vec![5]), "2"), under_its_time("+a\n+a\n...\n"));
    }

    #[test]
    fn as_spark_prints() {
        let text = styled(&["hello", "world"], Some(vec![2, 1]), None, &[("style", "spark")]);
        assert_eq!(text, under_its_time("(hello,2)\n(world,1)\n"));
        assert_eq!(styled(&[], None, None, &[("style", "spark")]), under_its_time(""));
    }
}
