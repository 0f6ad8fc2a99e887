//! `ECHO 'text'`: sends a text back as a notice.

use millstream_sql::{Result, TokenReader};

use crate::session::{Response, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static ECHO: Statement = Statement {
    words: &[&["ECHO"]],
    synopsis: "ECHO 'text';",
    purpose: "send a text back as a notice",
    pages: &["echo"],
    begins: None,
    run: Run::Alone(|_, mut reader| Box::pin(async move { run(&mut reader) })),
    rules: Rules::DEFAULT,
};

fn run(reader: &mut TokenReader<'_>) -> Result<Response> {
    let text = reader.string()?;
    reader.expect_end()?;
    Ok(Tag { text: "ECHO".into(), notices: vec![text] }.into())
}
