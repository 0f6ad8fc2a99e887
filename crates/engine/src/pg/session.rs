//! The server and its sessions in PostgreSQL's catalog: settings, roles, databases.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::facts::{DATABASE, Facts, OWNER};
use super::rows::{Rows, Value};
use crate::jobs::Job;
use crate::settings::SETTINGS;
use crate::variables::{SERVER_VERSION, VARIABLES, time_zone};

/// The number of UTF8 among encodings.
const UTF8: i64 = 6;
/// The OID of the only tablespace.
const TABLESPACE: i64 = 1663;

/// Fills a table. Returns false if this module has no rows for it.
pub(super) fn fill(facts: &Facts, table: &str, rows: &mut Rows) -> bool {
    let variables = facts.variables();
    let user = variables.user.as_str();
    match table {
        "pg_settings" => settings(facts, rows),
        "pg_roles" | "pg_authid" => rows.push(&[
            ("oid", OWNER.into()),
            ("rolname", user.into()),
            ("rolsuper", true.into()),
            ("rolinherit", true.into()),
            ("rolcreaterole", true.into()),
            ("rolcreatedb", true.into()),
            ("rolcanlogin", true.into()),
            ("rolreplication", true.into()),
            ("rolbypassrls", true.into()),
            ("rolconnlimit", (-1).into()),
        ]),
        "pg_user" | "pg_shadow" => rows.push(&[
            ("usename", user.into()),
            ("usesysid", OWNER.into()),
            ("usecreatedb", true.into()),
            ("usesuper", true.into()),
            ("userepl", true.into()),
            ("usebypassrls", true.into()),
        ]),
        "pg_database" => rows.push(&[
            ("oid", DATABASE.into()),
            ("datname", variables.database.as_str().into()),
            ("datdba", OWNER.into()),
            ("encoding", UTF8.into()),
            ("datlocprovider", 'c'.into()),
            ("datallowconn", true.into()),
            ("datconnlimit", (-1).into()),
            ("dattablespace", TABLESPACE.into()),
            ("datcollate", "C".into()),
            ("datctype", "C.UTF-8".into()),
        ]),
        "pg_tablespace" => {
            rows.push(&[
                ("oid", TABLESPACE.into()),
                ("spcname", "pg_default".into()),
                ("spcowner", OWNER.into()),
            ]);
        }
        "pg_stat_activity" => activity(facts, rows),
        "pg_stat_database" => rows.push(&[
            ("datid", DATABASE.into()),
            ("datname", variables.database.as_str().into()),
            ("numbackends", 1.into()),
        ]),
        "pg_timezone_names" => time_zones(rows),
        "pg_config" => rows.push(&[("name", "VERSION".into()), ("setting", SERVER_VERSION.into())]),
        _ => return false,
    }
    true
}

/// Adds the zones with their offsets at the present time.
fn time_zones(rows: &mut Rows) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for shown in time_zone::shown_at(i64::try_from(now).unwrap_or(0)) {
        rows.push(&[
            ("name", shown.name.into()),
            ("abbrev", shown.abbreviation.into()),
            ("utc_offset", shown.offset.into()),
            ("is_dst", shown.is_dst.into()),
        ]);
    }
}

/// Adds the sessions with running statements; this one comes first.
fn activity(facts: &Facts, rows: &mut Rows) {
    let variables = facts.variables();
    let jobs = facts.jobs.all();
    let (own, others): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| job.backend == variables.backend);
    let mut push = |backend: i64, user: &str, job: Option<&Arc<Job>>, more: Vec<(&'static str, Value)>| {
        let mut row = vec![
            ("datid", DATABASE.into()),
            ("datname", variables.database.as_str().into()),
            ("pid", backend.into()),
            ("usesysid", OWNER.into()),
            ("usename", user.into()),
            ("state", "active".into()),
            ("query_start", job.map(|job| job.began.0).into()),
            ("query", job.map(|job| job.shown_statement()).into()),
            ("backend_type", "client backend".into()),
        ];
        row.extend(more);
        rows.push(&row);
    };
    let client = variables.addresses.map(|(client, _)| client);
    let more = vec![
        ("application_name", variables.get("application_name").into()),
        ("client_addr", client.map(|client| client.ip().to_canonical().to_string()).into()),
        ("client_port", client.map(|client| i64::from(client.port())).into()),
    ];
    push(variables.backend, &variables.user, own.last().copied(), more);
    for job in others {
        push(job.backend, &job.user, Some(job), Vec::new());
    }
}

/// Adds PostgreSQL's settings in this session, then the engine's.
fn settings(facts: &Facts, rows: &mut Rows) {
    let variables = facts.variables();
    let mut push = |name: &str, value: String, default: &str, category: &str, doc: &str| {
        let boolean = ["on", "off"].contains(&value.as_str());
        rows.push(&[
            ("name", name.into()),
            ("setting", value.into()),
            ("category", category.into()),
            ("short_desc", doc.into()),
            ("context", "user".into()),
            ("vartype", if boolean { "bool" } else { "string" }.into()),
            ("source", "session".into()),
            ("boot_val", default.into()),
            ("reset_val", default.into()),
            ("pending_restart", false.into()),
        ]);
    };
    for variable in VARIABLES {
        let value = variables.get(variable.name).unwrap_or_default();
        push(variable.name, value, variable.default, "Session", variable.doc);
    }
    for setting in SETTINGS {
        let value = facts.settings.show(setting.name).unwrap_or_default();
        push(setting.name, value, setting.default, "Engine", setting.doc);
    }
}
