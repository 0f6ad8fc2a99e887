//! `millstream inspect DIR`: lists the content of a data directory and verifies all checksums.

use std::collections::BTreeMap;
use std::io::Write;

use millstream::{InspectedPlan, Inspection};

use crate::place::Place;
use crate::stop::Stop;

/// Prints the content, and fails if a part of it is damaged.
pub fn run(place: &Place) -> Result<(), Stop> {
    let found = place.inspect()?;
    let printed = writeln!(std::io::stdout(), "{}", text(&found));
    printed.map_err(|_| Stop::Closed)?;
    match found.is_whole() {
        true => Ok(()),
        false => Err(Stop::Statement(format!("error: '{}' is damaged", place.shown().display()))),
    }
}

fn text(found: &Inspection) -> String {
    let mut lines = vec!["checkpoints:".to_owned()];
    if found.checkpoints.is_empty() {
        lines.push("  none".to_owned());
    }
    for checkpoint in &found.checkpoints {
        let through = checkpoint.through;
        match (&checkpoint.damage, checkpoint.epoch) {
            (Some(damage), _) => lines.push(format!("  entry {through}: DAMAGED: {damage}")),
            (None, epoch) => {
                let bytes = checkpoint.parts.iter().map(|part| part.bytes).sum();
                let epoch = epoch.map_or(0, |epoch| epoch.0);
                lines.push(format!("  entry {through}, epoch {epoch}: {}, whole", size(bytes)));
            }
        }
        for part in &checkpoint.parts {
            let rows = part.rows.map_or_else(String::new, |rows| format!(", {rows} rows"));
            let of = part.of.map_or_else(String::new, |of| format!(", of entry {of}"));
            let name = part.name.trim_start_matches('\0');
            lines.push(format!("    {name}: {}{rows}{of}", size(part.bytes)));
        }
    }
    let newest = found.checkpoints.iter().rev().find(|checkpoint| checkpoint.damage.is_none());
    let plans = newest.into_iter().flat_map(|checkpoint| &checkpoint.plans).chain(&found.plans);
    let plans: BTreeMap<&str, &InspectedPlan> = plans.map(|plan| (plan.object.as_str(), plan)).collect();
    if !plans.is_empty() {
        lines.push("plans:".to_owned());
    }
    lines.extend(plans.into_values().map(|plan| match &plan.plan {
        Ok(bytes) => format!("  {}: {}, made by version {}", plan.object, size(*bytes), plan.version),
        Err(reason) => {
            format!("  {}: none, since {reason} can't be kept: a start plans it again", plan.object)
        }
    }));
    lines.push("journal:".to_owned());
    lines.extend(found.segments.iter().map(|(name, bytes)| format!("  {name}: {}", size(*bytes))));
    match found.entries {
        None => lines.push("  no entries after the oldest checkpoint".to_owned()),
        Some((first, last)) => lines.push(format!(
            "  entries {first} to {last}; a start replays {}, {} of them epochs",
            found.behind.0, found.behind.1
        )),
    }
    if found.torn > 0 {
        lines.push(format!("  {} writes that a crash cut short, which are left out", found.torn));
    }
    lines.extend(found.damage.iter().map(|damage| format!("  DAMAGED: {damage}")));
    lines.join("\n")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
