//! `ADVANCE BATCH [n]`, `ADVANCE TIME TO 'timestamp'`: a manual clock moves.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use millstream_delta::Timestamp;
use millstream_sql::{Error, Result, TokenReader};

use crate::event::{Advance, Event};
use crate::session::{Response, Session, Tag};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (advance, tag) = if reader.keyword(&["BATCH"]) {
        let count = if reader.is_end() { 1 } else { reader.number()? };
        (Advance::Batches(count), "ADVANCE BATCH")
    } else if reader.keyword(&["TIME", "TO"]) {
        reader.keyword(&["TIMESTAMP"]);
        let at = reader.position();
        let text = reader.string()?;
        let nanos = string_to_timestamp_nanos(&text).map_err(|_| {
            Error::invalid(format!("'{text}' is no timestamp"))
                .hint("Write it as '1970-01-01 00:00:05', in UTC.")
                .at(at)
        })?;
        (Advance::To(Timestamp(nanos.div_euclid(1000))), "ADVANCE TIME")
    } else {
        return Err(reader.expected("BATCH or TIME TO"));
    };
    reader.expect_end()?;
    session.shared.ask(|reply| Event::Advance { advance, reply }).await?;
    Ok(Tag::new(tag).into())
}
