//! The output formats, one a file.

mod csv;
mod expanded;
mod json;
mod line;
mod markdown;
mod table;

pub use csv::Csv;
pub use expanded::Expanded;
pub use json::Json;
pub use line::Line;
pub use markdown::Markdown;
pub use table::{Table, width};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use crate::form::{Look, Mode, form};

    fn render(mode: Mode, look: Look) -> String {
        let words: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a,\"b\"|c"), None, Some("x\ny"), Some("")]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(20), None, Some(4)]));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("word", words, true), ("n", counts, true)]).unwrap();
        let mut out = Vec::new();
        let mut form = form(mode, batch.schema(), look);
        form.write(&[batch.slice(0, 2)], &mut out).unwrap();
        form.write(&[batch.slice(2, 2)], &mut out).unwrap();
        form.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn check(mode: Mode, expect: &str) {
        assert_eq!(render(mode, Look::default()), expect);
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        check(Mode::Csv, "word,n\n\"a,\"\"b\"\"|c\",1\n,20\n\"x\ny\",\n\"\",4\n");
    }

    #[test]
    fn json_keeps_types_and_nulls() {
        check(
            Mode::Json,
            "[{\"word\":\"a,\\\"b\\\"|c\",\"n\":1},\n{\"word\":null,\"n\":20},\n{\"word\":\"x\\ny\",\"n\":null},\n\
             {\"word\":\"\",\"n\":4}]\n",
        );
        check(
            Mode::Ndjson,
            "{\"word\":\"a,\\\"b\\\"|c\",\"n\":1}\n{\"word\":null,\"n\":20}\n{\"word\":\"x\\ny\",\"n\":null}\n\
             {\"word\":\"\",\"n\":4}\n",
        );
    }

    #[test]
    fn markdown_escapes_what_would_end_a_cell() {
        check(
            Mode::Markdown,
            "| word | n |\n| --- | ---: |\n| a,\"b\"\\|c | 1 |\n| NULL | 20 |\n| x<br>y | NULL |\n|  | 4 |\n",
        );
    }

    #[test]
    fn lines_have_a_value_each() {
        check(
            Mode::Line,
            "word = a,\"b\"|c\n   n = 1\n\nword = NULL\n   n = 20\n\nword = x\n       y\n   n = NULL\n\nword = \n   n = 4\n",
        );
    }

    #[test]
    fn expanded_rows_are_blocks() {
        let expect = "-[ RECORD 1 ]-\nword | a,\"b\"|c\nn    | 1\n-[ RECORD 2 ]-\nword | NULL\nn    | 20\n\
                      -[ RECORD 3 ]-\nword | x\n     | y\nn    | NULL\n-[ RECORD 4 ]-\nword |\nn    | 4\n(4 rows)\n";
        assert_eq!(render(Mode::Table, Look { expanded: true, ..Look::default() }), expect);
    }
}
