//! Exhaustive exploration of the protocol. Two processes follow the rules of [`crate::protocol`] in every
//! order of their actions. They are killed, lose power, lose answers and take the prefix from each other. The
//! test checks the invariants in every state.
//!
//! The decisions are the functions that the engine itself calls. The code around them is a model: an epoch
//! takes one input, and a checkpoint is one file and a manifest. The target stores its epoch in the same
//! transaction, or stores none. The other tests of this folder run the real code around the decisions, over
//! stores that fail.

mod explore;
mod rules;
mod sending;
mod steps;
mod world;
mod writer;

use millstream_delta::Epoch;

use crate::protocol::Owner;
use explore::{Counterexample, Explored, Model, explore};
use rules::{Rules, Sync};
use steps::{Action, is_over};
use world::{Found, Place, Process, Running, Setting, World};

impl Model for Setting {
    type State = World;
    type Action = Action;

    fn begin(&self) -> World {
        World::empty()
    }

    fn actions(&self, state: &World) -> Vec<Action> {
        self.next(state)
    }

    fn after(&self, state: &World, action: &Action) -> World {
        self.apply(state, *action)
    }

    fn check(&self, world: &World) -> Result<(), String> {
        let damaged = world.manifests.keys().map(|number| Some(*number));
        for damaged in std::iter::once(None).chain(damaged) {
            for synced in [true, false] {
                let found = world.found(synced, damaged).map_err(|what| match damaged {
                    Some(damaged) => format!("where checkpoint {damaged} is damaged: {what}"),
                    None => what,
                })?;
                if let Some(lost) = world.acknowledged.iter().find(|input| !found.history.contains(input)) {
                    return Err(format!("{lost} was acknowledged and is lost (damaged: {damaged:?})"));
                }
                self.check_target(world, &found)?;
            }
        }
        check_owner(world, &world.found(false, None)?)
    }

    /// Returns true if all inputs are taken and the target has all of them, or if no process can continue.
    fn is_end(&self, world: &World) -> bool {
        let goes_on = |process: &Process| !matches!(process, Process::Running(of) if is_over(of));
        let up = || world.processes.iter().filter(|process| **process != Process::Down && goes_on(process));
        if self.place == Place::Store && world.starts >= self.starts && up().next().is_none() {
            return true;
        }
        up().any(|process| match process {
            Process::Running(of) => self.is_done(world, of),
            _ => false,
        })
    }
}

impl Setting {
    fn is_done(&self, world: &World, of: &Running) -> bool {
        let newest = Epoch(of.history.len() as u64);
        let passed = of.sink.passed(&self.rules.sinks);
        let is_sent = self.tells.is_none() || passed == newest;
        world.inputs == self.inputs && of.ledger.has_all() && is_sent && of.checkpoints.saving.is_none()
    }

    /// The target holds what the journal holds: each epoch in order, and once if the target stores its epoch.
    fn check_target(&self, world: &World, found: &Found) -> Result<(), String> {
        let mut newest = Epoch::default();
        for (epoch, input) in &world.target.epochs {
            if found.history.get(epoch.0 as usize - 1) != Some(input) {
                return Err(format!("the target has input {input} as epoch {epoch}, which is lost"));
            }
            if *epoch > newest.next() {
                return Err(format!("the target has epoch {epoch} behind {newest}"));
            }
            if self.tells == Some(true) && *epoch <= newest {
                return Err(format!("the target has epoch {epoch} twice"));
            }
            newest = newest.max(*epoch);
        }
        Ok(())
    }
}

/// The owner of the newest claim knows the whole journal: no other process has written after it.
fn check_owner(world: &World, found: &Found) -> Result<(), String> {
    let claim = world.newest_claim();
    for process in &world.processes {
        if let Process::Running(of) = process
            && of.claim == claim
            && !is_over(of)
            && !of.history.starts_with(&found.history)
        {
            return Err(format!("{:?} is there, but who has it knows {:?}", found.history, of.history));
        }
    }
    Ok(())
}

/// Returns true if the variable for a larger exploration is set: a million and a half states, which need an
/// optimized build.
fn is_large() -> bool {
    std::env::var_os("MILLSTREAM_EXPLORED").is_some()
}

/// Returns the setting with a sink and at most one checkpoint.
fn with_sink(place: Place, tells: bool) -> Setting {
    let (tells, rules, more) = (Some(tells), Rules::real(), u8::from(is_large()));
    match place {
        Place::Folder => Setting {
            place,
            tells,
            rules,
            inputs: 2 + more,
            starts: 0,
            crashes: 2,
            checkpoints: 1,
            faults: 1,
        },
        Place::Store => Setting {
            place,
            tells,
            rules,
            inputs: 2,
            starts: 2 + more,
            crashes: 1,
            checkpoints: 0,
            faults: 1,
        },
    }
}

/// Returns the setting with more checkpoints and no sink.
fn with_checkpoints(place: Place) -> Setting {
    let (tells, rules, more) = (None, Rules::real(), u8::from(is_large()));
    match place {
        Place::Folder => Setting {
            place,
            tells,
            rules,
            inputs: 3 + more,
            starts: 0,
            crashes: 2,
            checkpoints: 3,
            faults: 1,
        },
        Place::Store => {
            Setting { place, tells, rules, inputs: 2, starts: 2, crashes: more, checkpoints: 2, faults: more }
        }
    }
}

fn holds(setting: &Setting) {
    let begun = std::time::Instant::now();
    match explore(setting) {
        Ok(Explored { states, steps, depth, ends }) => {
            let (place, tells, took) = (setting.place, setting.tells, begun.elapsed());
            println!(
                "{place:?}, {tells:?}: {states} states, {steps} steps, {depth} deep, {ends} ends, {took:?}"
            );
            assert!(states > 1_000 && ends > 0, "{states} states, {ends} ends");
        }
        Err(Counterexample { what, steps }) => panic!("{what}, after\n{}", steps.join("\n")),
    }
}

#[test]
fn nothing_is_lost_and_nothing_is_there_twice_in_a_folder() {
    holds(&with_sink(Place::Folder, true));
    holds(&with_sink(Place::Folder, false));
    holds(&with_checkpoints(Place::Folder));
}

#[test]
fn nothing_is_lost_and_nothing_is_there_twice_on_a_store() {
    holds(&with_sink(Place::Store, true));
    holds(&with_sink(Place::Store, false));
    holds(&with_checkpoints(Place::Store));
}

/// Checks that breaking a rule leads to the expected failure.
fn goes_wrong(name: &str, mut setting: Setting, expected: &str, breaks: impl FnOnce(&mut Rules)) {
    breaks(&mut setting.rules);
    match explore(&setting) {
        Ok(explored) => panic!("{name}: nothing goes wrong in {explored:?}"),
        Err(found) => {
            println!("{name}: {} after {:?}", found.what, found.steps);
            assert!(found.what.contains(expected), "{name}: {found:?}");
        }
    }
}

#[test]
fn each_rule_for_entries_and_sinks_is_needed() {
    for place in [Place::Folder, Place::Store] {
        let setting = || with_sink(place, true);
        goes_wrong("acknowledged at once", setting(), "was acknowledged and is lost", |rules| {
            rules.journal.may_acknowledge = |_, _| true;
        });
        goes_wrong("delivered at once", setting(), "which is lost", |rules| {
            rules.sinks.may_deliver = |_, _| true
        });
        goes_wrong("what the journal has is taken for published", setting(), "", |rules| {
            rules.sinks.published = |outside| outside.possible();
        });
    }
    for (place, tells) in [(Place::Folder, true), (Place::Folder, false), (Place::Store, false)] {
        goes_wrong(
            "what a sink gathers is taken for published",
            with_sink(place, tells),
            "behind",
            |rules| {
                rules.sinks.named = |asked, _| asked;
            },
        );
    }
    let setting = || with_sink(Place::Folder, true);
    goes_wrong("a target that tells is believed less than the journal", setting(), "", |rules| {
        rules.sinks.published = |outside| outside.delivered();
    });
    goes_wrong("a failed sync is tried again", setting(), "is lost", |rules| {
        rules.journal.ends_where_a_sync_fails = false;
    });
    goes_wrong("a start doesn't sync", setting(), "was expected", |rules| {
        rules.journal.syncs_at_start = Sync::None;
    });
    goes_wrong("a start syncs what was taken for written", setting(), "was expected", |rules| {
        rules.journal.syncs_at_start = Sync::Only;
    });
}

#[test]
fn each_rule_for_checkpoints_is_needed() {
    for place in [Place::Folder, Place::Store] {
        let setting = || with_checkpoints(place);
        goes_wrong("published before the journal has it", setting(), "", |rules| {
            rules.checkpoints.may_publish = |_, _| true;
        });
        goes_wrong("the journal is cut behind the newest", setting(), "where checkpoint", |rules| {
            rules.checkpoints.covered = |kept, _| kept.last().copied();
        });
    }
    let setting = || with_checkpoints(Place::Folder);
    goes_wrong("a segment too many is removed", setting(), "where checkpoint", |rules| {
        rules.journal.passed = |firsts, through| {
            (0..firsts.len().saturating_sub(1)).filter(|place| firsts[*place] <= through).collect()
        };
    });
    goes_wrong("one checkpoint is kept", setting(), "where checkpoint", |rules| {
        rules.checkpoints.kept = |whole, _| whole.last().copied().into_iter().collect();
        rules.checkpoints.covered = |kept, _| kept.first().copied();
    });
}

#[test]
fn each_rule_for_two_processes_is_needed() {
    let setting = || with_checkpoints(Place::Store);
    goes_wrong("claims are removed", setting(), "", |rules| rules.claims.may_be_claim = |_, _| false);
    goes_wrong("what is there is written over", setting(), "", |rules| rules.claims.puts_if_absent = false);
    goes_wrong("who has read another claim goes on", setting(), "who has it knows", |rules| {
        rules.claims.owner = |_, _| Owner::Reader;
    });
    goes_wrong("the claim isn't looked after", setting(), "where checkpoint", |rules| {
        rules.claims.looks_after_the_claim = false;
    });
    goes_wrong("what others may still write is removed", setting(), "where checkpoint", |rules| {
        rules.checkpoints.is_left_over = |number, kept, _| !kept.contains(&number);
    });
}
