//! The possible actions of a world, and their effects. A process can be cut off between any two actions.

use std::collections::BTreeSet;

use millstream_delta::Epoch;

use super::rules::{KEPT, Sync};
use super::sending::Sending;
use super::world::{
    Checkpoints, Item, Manifest, Object, Place, Process, Running, Saving, Segment, Setting, Stage, World,
};
use super::writer::Writer;
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
        match &of.checkpoints.saving {
            None if !of.writer.is_forgetting()
                && of.last != of.checkpoints.saved
                && world.checkpoints < self.checkpoints
                && of.ledger.ended().is_none() =>
            {
                actions.push(Action::Save(at));
            }
            None => {}
            Some(saving)
                if saving.stage == Stage::Drafted
                    && !(rules.checkpoints.may_publish)(&of.ledger, saving.through)
                    && of.ledger.ended().is_none() => {}
            Some(_) => actions.push(Action::SaveOn(at)),
        }
    }

    /// Adds the possible actions of the sink's task.
    fn of_sink(&self, of: &Running, at: usize, actions: &mut Vec<Action>) {
        let rules = &self.rules.sinks;
        if !of.sink.has_asked() {
            actions.push(Action::Ask(at));
        }
        let next = of.sink.passed(rules).next();
        let there = next.0 <= of.history.len() as u64;
        if of.sink.may_send() && there && (rules.may_deliver)(&of.ledger, next) {
            actions.push(Action::Send(at));
        }
        match of.sink.sending() {
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
        if of.writer.is_forgetting() {
            return actions.push(Action::Forget(at));
        }
        if of.writer.is_unsynced() {
            actions.push(Action::Sync(at));
            if world.faults < self.faults {
                actions.push(Action::SyncFails(at));
            }
        } else if of.writer.has_entries() {
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
                Place::Folder => of.writer.append(&mut world.journal),
                Place::Store => setting.put(world, of, true),
            }),
            Action::WriteUnanswered(at) => self.running(&mut world, at, |setting, world, of| {
                world.faults += 1;
                setting.put(world, of, false);
            }),
            Action::Sync(at) => self.running(&mut world, at, Setting::sync),
            Action::SyncFails(at) => self.running(&mut world, at, Setting::sync_fails),
            Action::Ask(at) => self.running(&mut world, at, |_, world, of| of.sink.ask(&world.target)),
            Action::Send(at) => self.running(&mut world, at, |setting, _, of| {
                of.sink.send(&setting.rules.sinks, &of.ledger, Epoch(of.history.len() as u64));
            }),
            Action::Gather(at) => {
                self.running(&mut world, at, |setting, _, of| of.sink.gather(&setting.rules.sinks));
            }
            Action::Commit(at) => self.running(&mut world, at, |setting, world, of| {
                of.sink.commit(&mut world.target, setting.tells == Some(true), &of.history, of.id);
            }),
            Action::Answer(at) => self.running(&mut world, at, |_, _, of| of.sink.answer(of.id)),
            Action::Save(at) => self.running(&mut world, at, Setting::save),
            Action::SaveOn(at) => self.running(&mut world, at, Setting::save_on),
            Action::Forget(at) => self.running(&mut world, at, |setting, world, of| {
                let first = of.writer.next_to_forget();
                let is_claim = matches!(
                    world.journal.get(&first).map(|segment| &segment.items[..]),
                    Some([Item::Claim(_), ..])
                );
                let stays = setting.place == Place::Store
                    && (setting.rules.claims.may_be_claim)(first, of.claim)
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
        let kept = |(entry, _): &(Sequence, u8)| (self.rules.journal.may_acknowledge)(&of.ledger, *entry);
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
        let gone = |object: &Object| (self.rules.checkpoints.is_left_over)(object.number(), &kept, before);
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
        if self.place == Place::Store && (self.rules.claims.owner)(found.last, claim) != Owner::Reader {
            return Process::Down;
        }
        let next = found.last.next();
        if self.place == Place::Folder {
            if let Some(segment) = world.journal.values_mut().rfind(|segment| !segment.items.is_empty()) {
                match self.rules.journal.syncs_at_start {
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
            promised: Vec::new(),
            writer: Writer::new(next),
            sink: Sending::new(outside, delivered),
            checkpoints: Checkpoints {
                whole: from.into_iter().collect(),
                drafts: 0,
                saved: from.unwrap_or_default(),
                saving: None,
            },
        }))
    }

    fn take(&self, world: &mut World, of: &mut Running) {
        world.inputs += 1;
        of.history.push(world.inputs);
        let number = Epoch(of.history.len() as u64);
        of.last = of.last.next();
        of.writer.push(Item::Epoch { number, input: world.inputs, told: of.sink.take_news() });
        of.ledger.append(of.last, number);
        of.promised.push((of.last, world.inputs));
    }

    fn put(&self, world: &mut World, of: &mut Running, answered: bool) {
        match of.writer.put(&mut world.journal, self.rules.claims.puts_if_absent) {
            Ok(()) if answered => of.ledger.are_durable(of.writer.written()),
            Ok(()) => {}
            Err(end) => of.ledger.end(end),
        }
    }

    fn sync(&self, world: &mut World, of: &mut Running) {
        of.writer.sync(&mut world.journal);
        of.ledger.are_durable(of.writer.written());
    }

    fn sync_fails(&self, world: &mut World, of: &mut Running) {
        world.faults += 1;
        of.writer.fail_sync(&mut world.journal);
        if self.rules.journal.ends_where_a_sync_fails {
            of.ledger.end(End::Failed);
        }
    }

    fn save(&self, world: &mut World, of: &mut Running) {
        world.checkpoints += 1;
        of.checkpoints.drafts += u8::from(self.place == Place::Store);
        let delivered = of.sink.delivered();
        let manifest = Manifest {
            file: (of.last, of.claim, of.checkpoints.drafts),
            history: of.history.clone(),
            delivered,
        };
        of.checkpoints.saving = Some(Saving { through: of.last, manifest, stage: Stage::Begun });
    }

    /// The next step of a checkpoint.
    fn save_on(&self, world: &mut World, of: &mut Running) {
        let Some(mut saving) = of.checkpoints.saving.take() else { return };
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
                of.checkpoints.whole.insert(saving.through);
                Stage::Published
            }
            Stage::Published => {
                // Without the claim nothing is removed; the checkpoint stays.
                if self.place == Place::Store
                    && self.rules.claims.looks_after_the_claim
                    && world.journal.contains_key(&of.writer.next())
                {
                    of.checkpoints.saved = saving.through;
                    return;
                }
                Stage::Held
            }
            Stage::Held => {
                let kept = (self.rules.checkpoints.kept)(&of.checkpoints.whole, KEPT);
                let before = kept.last().copied().filter(|_| self.place == Place::Store);
                let gone =
                    |object: &Object| (self.rules.checkpoints.is_left_over)(object.number(), &kept, before);
                Stage::Removing(world.objects().into_iter().filter(gone).collect())
            }
            Stage::Removing(mut gone) if !gone.is_empty() => {
                world.remove(gone.remove(0));
                Stage::Removing(gone)
            }
            Stage::Removing(_) => return self.saved(world, of, saving.through),
        };
        saving.stage = stage;
        of.checkpoints.saving = Some(saving);
    }

    /// Records a published checkpoint after its cleanup, and lets the journal remove segments.
    fn saved(&self, world: &World, of: &mut Running, through: Sequence) {
        of.checkpoints.saved = through;
        let kept = (self.rules.checkpoints.kept)(&of.checkpoints.whole, KEPT);
        of.checkpoints.whole.retain(|number| kept.contains(number));
        let Some(covered) = (self.rules.checkpoints.covered)(&kept, KEPT) else { return };
        let firsts: Vec<Sequence> = world.journal.keys().copied().collect();
        let passed = (self.rules.journal.passed)(&firsts, covered).into_iter().map(|place| firsts[place]);
        of.writer.forget(passed.collect(), self.place == Place::Folder);
    }
}

/// Returns true if a process cannot continue by itself.
pub fn is_over(of: &Running) -> bool {
    of.sink.is_stopped() || of.ledger.ended().is_some()
}
