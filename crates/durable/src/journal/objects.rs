//! The journal on an object store: each group of entries is a segment, put only if no object has its name.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{Ended, Segments, Told};
use crate::claim::{Claim, JOURNAL, claimed_by, object_name};
use crate::frame::{self, Salt, Sequence};
use crate::protocol::{self, Owner};
use crate::store::Put;
use crate::{Error, Result};

/// The limit of the pause between two attempts, as a multiple of the first one. The pause doubles after each
/// failure.
const PAUSES_MAX: u32 = 50;

/// Number of attempts once the journal is closing.
const LAST_TRIES: u32 = 3;

/// The segments below a prefix that this process has claimed.
pub(super) struct Objects {
    claim: Arc<Claim>,
    /// Segments that are known to begin with a claim.
    claims: BTreeSet<Sequence>,
}

impl Objects {
    /// Continues after the entry `after`. That entry is the claim, unless another process has claimed the
    /// prefix since.
    pub(super) fn begin(claim: Arc<Claim>, after: Sequence) -> Result<Objects> {
        match protocol::owner(after, claim.number()) {
            Owner::Reader => {
                let claims = BTreeSet::from([claim.number()]);
                return Ok(Objects { claim, claims });
            }
            Owner::Unknown => {
                let reason =
                    format!("the store lists nothing after entry {after}, but {} is there", claim.number());
                return Err(Error::Corrupt { name: JOURNAL.into(), offset: 0, reason });
            }
            Owner::Another => {}
        }
        let name = object_name(claim.number().next());
        let found = claim.store().read(&name);
        Err(match found {
            Ok(found) => claim.lost(&found),
            Err(error) => Error::disk("reading", &name, error),
        })
    }
}

impl Segments for Objects {
    /// Puts the group. After an error it puts the same bytes again, since the outcome is unknown.
    fn write(
        &mut self,
        (begins, last): (Sequence, Sequence),
        (group, salt): (&[u8], Salt),
        told: &mut Told,
    ) -> Result<(), Ended> {
        let name = object_name(begins);
        let bytes = Bytes::from([&frame::head(begins, salt), group].concat());
        let mut pause = self.claim.store().pause();
        let pause_max = pause * PAUSES_MAX;
        let mut last_tries = 0;
        loop {
            let error = match self.claim.store().put_new(&name, &bytes) {
                Ok(Put::Done) => {
                    self.claim.go_on(last.next());
                    return Ok(());
                }
                Ok(Put::Taken(found)) => return Err(Ended::Lost(self.claim.lost(&found).to_string())),
                Err(error) => error,
            };
            let reason = format!("writing journal '{}/{name}' failed: {error}", self.claim.store().shown());
            if told.is_ending() {
                last_tries += 1;
                if last_tries == LAST_TRIES {
                    return Err(Ended::Failed(reason));
                }
            }
            told.wait(reason, pause);
            pause = (pause * 2).min(pause_max);
        }
    }

    /// Removes the segments that have no entry after `through`, except claims: a previous owner must find its
    /// successor's claim, however late it resumes.
    fn forget(&mut self, through: Sequence) -> io::Result<()> {
        let store = self.claim.store();
        let names = store.list(JOURNAL)?;
        for (name, first) in super::passed(&names, through) {
            let name = format!("{JOURNAL}/{name}");
            if !protocol::may_be_claim(first, self.claim.number()) {
                store.remove(&name)?;
            } else if !self.claims.contains(&first) {
                match store.read(&name) {
                    Ok(segment) if claimed_by(&segment).is_some() => drop(self.claims.insert(first)),
                    Ok(_) => store.remove(&name)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
