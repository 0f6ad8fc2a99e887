//! The possible actions of a world, and their effects. A process can be cut off between any two actions.

use std::collections::BTreeSet;

use millstream_delta::Epoch;

use super::rules::{KEPT, Sync};
use super::world::{Item, Manifest, Object, Place, Process, Running, Saving, Segment, Setting, Stage, World};
use crate::Sequence;
use crate::protocol::{self, End, Ledger, Outside, Owner};

/// Number of claims that a process puts before it gives up.
const TRIES: usize = 2;

/// An action, with the index of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start(usize),
    /// The next step of a start.
    GoOn(usize),
    Kill(usize),
    /// The machine loses power; this number of unsynced entries survives.
    PowerLoss(usize),
    /// An input arrives; an epoch takes it, is appended to the journal and stepped.
    Take(usize),
    /// Entries are written: appended in a folder, put on a store.
    Write(usize),
    /// Entries are put, but the answer is lost.
    WriteUnanswered(usize),
    Sync(usize),
    SyncFails(usize),
    /// The target reports its epoch.
    Ask(usize),
    Send(usize),
    /// The sink buffers the rows it was sent, and reports that.
    Gather(usize),
    /// A transaction is committed.
    Commit(usize),
    /// The answer to the transaction arrives.
    Answer(usize),
    Save(usize),
    /// The next step of a checkpoint.
    SaveOn(usize),
    /// A segment is removed.
    Forget(usize),
}

impl Setting {
    pub fn next(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        for at in 0..2 {
            match &world.processes[at] {
                Process::Down if self.may_start(world, at) => actions.push(Action::Start(at)),
                Process::Down => {}
                Process::Running(running) => self.of_running(world, running, at, &mut actions),
                _ => actions.push(Action::GoOn(at)),
            }
            let is_up = world.processes[at] != Process::Down;
            // A supervisor ends a process that cannot continue.
            let is_over = matches!(&world.processes[at], Process::Running(of) if is_over(of));
            if is_up && (is_over || world.crashes < self.crashes) {
                actions.push(Action::Kill(at));
            }
        }
        if self.place == Place::Folder && world.crashes < self.crashes {
            let unsynced = world.journal.values().map(|of| of.items.len() - of.synced).max().unwrap_or(0);
            actions.extend((0..=unsynced).map(Action::PowerLoss));
        }
        actions
    }

    fn may_start(&self, world: &World, at: usize) -> bool {
        match self.place {
            // The folder is locked.
            Place::Folder => at == 0,
            // The processes are symmetric, so the order of their first starts does not matter.
            Place::Store => world.starts < self.starts && (at == 0 || world.starts > 0),
        }
    }

    fn of_running(&self, world: &World, of: &Running, at: usize, actions: &mut Vec<Action>) {
        let rules = &self.rules;
        if world.inputs < self.inputs && of.ledger.may_decide() {
            actions.push(Action::Take(at));
        }
        self.of_journal(world, of, at, actions);
        if self.tells.is_some() {
            self.of_sink(of, at, actions);
        }
        match &of.saving {
            None if of.forgetting.is_empty()
                && of.last != of.saved
                && world.checkpoints < self.checkpoints
                && of.ledger.ended().is_none() =>
            {
                actions.push(Action::Save(at));
            }
            None => {}
            Some(saving)
                if saving.stage == Stage::Drafted
                    && !(rules.may_publish)(&of.ledger, saving.through)
                    && of.ledger.ended().is_none() => {}
            Some(_) => actions.push(Action::SaveOn(at)),
        }
    }

    /// Adds the possible actions of the sink's task.
    fn of_sink(&self, of: &Running, at: usize, actions: &mut Vec<Action>) {
        let rules = &self.rules;
        if of.known.is_none() {
            actions.push(Action::Ask(at));
        }
        let next = Epoch(of.passed.max((rules.published)(&of.outside)).0 + 1);
        let there = next.0 <= of.history.len() as u64;
        let may = of.outside.may_send() && !of.stopped && of.sending.is_none();
        if may && there && (rules.may_deliver)(&of.ledger, next) {
            actions.push(Action::Send(at));
        }
        match of.sending {
            Some((_, false)) => actions.extend([Action::Commit(at), Action::Gather(at)]),
            Some((_, true)) => actions.push(Action::Answer(at)),
            None => {}
        }
    }

    /// Adds the possible actions of the journal's thread.
    fn of_journal(&self, world: &World, of: &Running, at: usize, actions: &mut Vec<Action>) {
        if of.ledger.ended().is_some() {
            return;
        }
        if !of.forgetting.is_empty() {
            return actions.push(Action::Forget(at));
        }
        if of.appended {
            actions.push(Action::Sync(at));
            if world.faults < self.faults {
                actions.push(Action::SyncFails(at));
            }
        } else if !of.group.is_empty() || !of.waiting.is_empty() {
            actions.push(Action::Write(at));
            if self.place == Place::Store && world.faults < self.faults {
                actions.push(Action::WriteUnanswered(at));
            }
        }
    }

    pub fn apply(&self, before: &World, action: Action) -> World {
        let mut world = before.clone();
        match action {
            Action::Start(at) => self.start(&mut world, at),
            Action::GoOn(at) => {
                let process = std::mem::replace(&mut world.processes[at], Process::Down);
                world.processes[at] = self.go_on(&mut world, process);
            }
            Action::Kill(at) => {
                let is_over = matches!(&world.processes[at], Process::Running(of) if is_over(of));
                world.crashes += u8::from(!is_over);
                world.processes[at] = Process::Down;
            }
            Action::PowerLoss(kept) => {
                world.crashes += 1;
                world.processes = [Process::Down, Process::Down];
                for segment in world.journal.values_mut() {
                    segment.items.truncate(segment.synced + kept);
                    segment.synced = segment.items.len();
                    segment.forgotten = false;
                }
            }
            Action::Take(at) => self.running(&mut world, at, Setting::take),
            Action::Write(at) => self.running(&mut world, at, |setting, world, of| match setting.place {
                Place::Folder => append(world, of),
                Place::Store => setting.put(world, of, true),
            }),
            Action::WriteUnanswered(at) => self.running(&mut world, at, |setting, world, of| {
                world.faults += 1;
                setting.put(world, of, false);
            }),
            Action::Sync(at) => self.running(&mut world, at, Setting::sync),
            Action::SyncFails(at) => self.running(&mut world, at, Setting::sync_fails),
            Action::Ask(at) => self.running(&mut world, at, |_, world, of| {
                of.known = Some(world.target.known);
                of.outside.holds(world.target.known.0);
                of.stopped |= of.outside.too_much().is_some();
            }),
            Action::Send(at) => self.running(&mut world, at, Setting::send),
            Action::Gather(at) => self.running(&mut world, at, Setting::gather),
            Action::Commit(at) => self.running(&mut world, at, Setting::commit),
            Action::Answer(at) => self.running(&mut world, at, |_, _, of| {
                if let Some((through, _)) = of.sending.take() {
                    (of.passed, of.known, of.news) = (through, Some((through, of.id)), Some(through));
                }
            }),
            Action::Save(at) => self.running(&mut world, at, Setting::save),
            Action::SaveOn(at) => self.running(&mut world, at, Setting::save_on),
            Action::Forget(at) => self.running(&mut world, at, |setting, world, of| {
                let first = of.forgetting.remove(0);
                let is_claim = matches!(
                    world.journal.get(&first).map(|segment| &segment.items[..]),
                    Some([Item::Claim(_), ..])
                );
                let stays = setting.place == Place::Store
                    && (setting.rules.may_be_claim)(first, of.claim)
                    && is_claim;
                if !stays {
                    world.journal.remove(&first);
                }
            }),
        }
        world
    }

    /// Changes a running process.
    fn running(&self, world: &mut World, at: usize, does: impl FnOnce(&Setting, &mut World, &mut Running)) {
        let process = std::mem::replace(&mut world.processes[at], Process::Down);
        let Process::Running(mut running) = process else { panic!("it isn't running") };
        does(self, world, &mut running);
        self.acknowledge(world, &mut running);
        world.processes[at] = Process::Running(running);
    }

    fn acknowledge(&self, world: &mut World, of: &mut Running) {
        let kept = |(entry, _): &(Sequence, u8)| (self.rules.may_acknowledge)(&of.ledger, *entry);
        let count = of.promised.iter().take_while(|promise| kept(promise)).count();
        world.acknowledged.extend(of.promised.drain(..count).map(|(_, input)| input));
    }

    fn start(&self, world: &mut World, at: usize) {
        world.starts += 1;
        let id = world.starts;
        world.processes[at] = match self.place {
            Place::Store => Process::Claiming { id, at: world.last().next() },
            Place::Folder => {
                // The folder is locked, so only a crash can interrupt, and it leaves nothing that counts.
                world.starts = 0;
                let listed = world.journal.keys().copied().collect();
                self.left_over(world, None).into_iter().for_each(|object| world.remove(object));
                let from = world.newest(None).map(|(number, _)| number);
                let claim = Sequence::default();
                self.go_on(world, Process::Reading { id: 1, claim, from, listed })
            }
        };
    }

    fn left_over(&self, world: &World, before: Option<Sequence>) -> Vec<Object> {
        let kept: BTreeSet<Sequence> = world.manifests.keys().copied().collect();
        let gone = |object: &Object| (self.rules.is_left_over)(object.number(), &kept, before);
        world.objects().into_iter().filter(gone).collect()
    }

    /// The next step of a start.
    fn go_on(&self, world: &mut World, process: Process) -> Process {
        match process {
            Process::Claiming { id, at } => match world.journal.get(&at) {
                None => {
                    let segment = Segment { items: vec![Item::Claim(id)], synced: 1, forgotten: false };
                    world.journal.insert(at, segment);
                    Process::Claimed { id, at }
                }
                Some(segment) => Process::Claiming { id, at: Sequence(at.0 + segment.items.len() as u64) },
            },
            Process::Claimed { id, at } => {
                let newest = world.journal.keys().last().copied();
                match protocol::stops_others(at, newest) {
                    true => {
                        let gone = self.left_over(world, Some(at));
                        Process::Clearing { id, claim: at, gone }
                    }
                    // Two processes that start at once may put claims after each other's again and again,
                    // until they give up.
                    false if world.claims_of(id) >= TRIES => Process::Down,
                    false => Process::Claiming { id, at: world.last().next() },
                }
            }
            Process::Clearing { id, claim, mut gone } => match gone.is_empty() {
                false => {
                    world.remove(gone.remove(0));
                    Process::Clearing { id, claim, gone }
                }
                true => {
                    let from = world.newest(None).map(|(number, _)| number);
                    let listed = world.journal.keys().copied().collect();
                    Process::Reading { id, claim, from, listed }
                }
            },
            Process::Reading { id, claim, from, listed } => self.read(world, (id, claim), from, &listed),
            other => other,
        }
    }

    /// Reads the journal, and continues from it if that is valid.
    fn read(
        &self,
        world: &mut World,
        (id, claim): (u8, Sequence),
        from: Option<Sequence>,
        listed: &[Sequence],
    ) -> Process {
        let manifest = from.and_then(|number| Some((number, world.manifests.get(&number)?)));
        // Another process has removed the checkpoint meanwhile, or the entries after it.
        let (false, Ok(found)) =
            (from.is_some() && manifest.is_none(), world.found_in(manifest, listed, false))
        else {
            return Process::Down;
        };
        let delivered = manifest.map_or(Epoch::default(), |(_, manifest)| manifest.delivered);
        if self.place == Place::Store && (self.rules.owner)(found.last, claim) != Owner::Reader {
            return Process::Down;
        }
        let next = found.last.next();
        if self.place == Place::Folder {
            if let Some(segment) = world.journal.values_mut().rfind(|segment| !segment.items.is_empty()) {
                match self.rules.syncs_at_start {
                    Sync::Again => (segment.synced, segment.forgotten) = (segment.items.len(), false),
                    Sync::Only if !segment.forgotten => segment.synced = segment.items.len(),
                    Sync::Only | Sync::None => {}
                }
            }
            world.journal.insert(next, Segment::default());
        }
        let newest = Epoch(found.history.len() as u64);
        let mut outside = Outside::of(Epoch(1), self.tells == Some(true));
        outside.was_delivered(found.delivered);
        outside.go_on(newest);
        Process::Running(Box::new(Running {
            id,
            claim,
            ledger: Ledger::after(newest),
            last: found.last,
            history: found.history,
            waiting: Vec::new(),
            group: Vec::new(),
            next,
            segment: next,
            ends: false,
            appended: false,
            promised: Vec::new(),
            outside,
            passed: delivered,
            known: None,
            sending: None,
            gathered: None,
            stopped: false,
            news: None,
            whole: from.into_iter().collect(),
            drafts: 0,
            saved: from.unwrap_or_default(),
            saving: None,
            forgetting: Vec::new(),
        }))
    }

    fn take(&self, world: &mut World, of: &mut Running) {
        world.inputs += 1;
        of.history.push(world.inputs);
        let number = Epoch(of.history.len() as u64);
        of.last = of.last.next();
        of.waiting.push(Item::Epoch { number, input: world.inputs, told: of.news.take() });
        of.ledger.append(of.last, number);
        of.promised.push((of.last, world.inputs));
    }

    /// Puts the waiting entries as one object, atomically. Without an answer, the process puts the same bytes
    /// again.
    fn put(&self, world: &mut World, of: &mut Running, answered: bool) {
        if of.group.is_empty() {
            of.group = std::mem::take(&mut of.waiting);
        }
        let there = world.journal.get(&of.next).filter(|_| self.rules.puts_if_absent);
        match there {
            Some(segment) if segment.items != of.group => return of.ledger.end(End::Lost),
            _ => {
                let segment = Segment { items: of.group.clone(), synced: of.group.len(), forgotten: false };
                world.journal.insert(of.next, segment);
            }
        }
        if answered {
            self.written(of);
        }
    }

    fn written(&self, of: &mut Running) {
        let count = std::mem::take(&mut of.group).len() as u64;
        of.next = Sequence(of.next.0 + count);
        of.ledger.are_durable(Sequence(of.next.0 - 1));
    }

    /// Syncs the segment. Entries appended before a failed sync stay lost, because the system takes them for
    /// written.
    fn sync(&self, world: &mut World, of: &mut Running) {
        let segment = world.journal.get_mut(&of.segment).expect("it is being written");
        if !segment.forgotten {
            segment.synced = segment.items.len();
        }
        of.appended = false;
        self.written(of);
    }

    fn sync_fails(&self, world: &mut World, of: &mut Running) {
        world.faults += 1;
        world.journal.get_mut(&of.segment).expect("it is being written").forgotten = true;
        if self.rules.ends_where_a_sync_fails {
            of.ledger.end(End::Failed);
        }
    }

    fn send(&self, _: &mut World, of: &mut Running) {
        of.passed = of.passed.max((self.rules.published)(&of.outside));
        let mut through = of.passed;
        while through.0 < of.history.len() as u64 && (self.rules.may_deliver)(&of.ledger, through.next()) {
            through = through.next();
        }
        of.sending = Some((through, false));
    }

    /// The sink buffers the rows it was sent, and reports the epoch that the target holds.
    fn gather(&self, _: &mut World, of: &mut Running) {
        let Some((through, _)) = of.sending.take() else { return };
        of.gathered.get_or_insert(of.passed);
        let passed = (self.rules.named)(through, of.passed);
        if passed > of.passed {
            (of.passed, of.news) = (passed, Some(passed));
        }
    }

    /// Commits the rows and the epoch in one transaction, which fails if another process has published since.
    fn commit(&self, world: &mut World, of: &mut Running) {
        let Some((through, _)) = of.sending else { return };
        if self.tells == Some(true) && of.known != Some(world.target.known) {
            (of.stopped, of.sending) = (true, None);
            return;
        }
        for epoch in of.gathered.take().unwrap_or(of.passed).0 + 1..=through.0 {
            world.target.epochs.push((Epoch(epoch), of.history[epoch as usize - 1]));
        }
        if self.tells == Some(true) {
            world.target.known = (through, of.id);
        }
        of.sending = Some((through, true));
    }

    fn save(&self, world: &mut World, of: &mut Running) {
        world.checkpoints += 1;
        of.drafts += u8::from(self.place == Place::Store);
        let delivered = of.passed.max(of.outside.delivered());
        let manifest =
            Manifest { file: (of.last, of.claim, of.drafts), history: of.history.clone(), delivered };
        of.saving = Some(Saving { through: of.last, manifest, stage: Stage::Begun });
    }

    /// The next step of a checkpoint.
    fn save_on(&self, world: &mut World, of: &mut Running) {
        let Some(mut saving) = of.saving.take() else { return };
        let stage = match saving.stage {
            Stage::Begun => {
                world.files.insert(saving.manifest.file);
                Stage::Drafted
            }
            Stage::Drafted if of.ledger.ended().is_some() => return,
            Stage::Drafted => {
                // A whole checkpoint of the same entry by another process is as good.
                let there = world.manifests.entry(saving.through).or_insert(saving.manifest.clone());
                if !world.files.contains(&there.file) {
                    return;
                }
                of.whole.insert(saving.through);
                Stage::Published
            }
            Stage::Published => {
                // Without the claim nothing is removed; the checkpoint stays.
                if self.place == Place::Store
                    && self.rules.looks_after_the_claim
                    && world.journal.contains_key(&of.next)
                {
                    of.saved = saving.through;
                    return;
                }
                Stage::Held
            }
            Stage::Held => {
                let kept = (self.rules.kept)(&of.whole, KEPT);
                let before = kept.last().copied().filter(|_| self.place == Place::Store);
                let gone = |object: &Object| (self.rules.is_left_over)(object.number(), &kept, before);
                Stage::Removing(world.objects().into_iter().filter(gone).collect())
            }
            Stage::Removing(mut gone) if !gone.is_empty() => {
                world.remove(gone.remove(0));
                Stage::Removing(gone)
            }
            Stage::Removing(_) => return self.saved(world, of, saving.through),
        };
        saving.stage = stage;
        of.saving = Some(saving);
    }

    /// Records a published checkpoint after its cleanup, and lets the journal remove segments.
    fn saved(&self, world: &World, of: &mut Running, through: Sequence) {
        of.saved = through;
        let kept = (self.rules.kept)(&of.whole, KEPT);
        of.whole.retain(|number| kept.contains(number));
        let Some(covered) = (self.rules.covered)(&kept, KEPT) else { return };
        let firsts: Vec<Sequence> = world.journal.keys().copied().collect();
        of.forgetting =
            (self.rules.passed)(&firsts, covered).into_iter().map(|place| firsts[place]).collect();
        of.forgetting.retain(|first| self.place == Place::Store || *first != of.segment);
        of.ends = true;
    }
}

/// Appends the waiting entries to the current segment, or to a new one.
fn append(world: &mut World, of: &mut Running) {
    of.group = std::mem::take(&mut of.waiting);
    let is_empty = world.journal.get(&of.segment).is_none_or(|segment| segment.items.is_empty());
    if std::mem::take(&mut of.ends) && !is_empty {
        of.segment = of.next;
    }
    world.journal.entry(of.segment).or_default().items.extend(&of.group);
    of.appended = true;
}

/// Returns true if a process cannot continue by itself.
pub fn is_over(of: &Running) -> bool {
    of.stopped || of.ledger.ended().is_some()
}
