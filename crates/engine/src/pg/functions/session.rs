//! Functions over the session and its user's privileges.

use std::net::SocketAddr;
use std::sync::PoisonError;

use millstream_sql::{Error, PG_CATALOG, Result};

use super::{Gives, Known, any_null, text};
use crate::jobs;
use crate::pg::facts::{Facts, split_name};
use crate::pg::rows::Value;
use crate::settings::Settings;
use crate::variables::{Lasts, SERVER_VERSION, find};

pub(super) const FUNCTIONS: &[Known] = &[
    ("version", Gives::Text, |_, _| Ok(format!("PostgreSQL {SERVER_VERSION}").into())),
    ("current_database", Gives::Text, |facts, _| Ok(facts.variables().database.into())),
    ("current_catalog", Gives::Text, |facts, _| Ok(facts.variables().database.into())),
    ("current_user", Gives::Text, user),
    ("session_user", Gives::Text, user),
    ("current_role", Gives::Text, user),
    ("user", Gives::Text, user),
    ("current_schema", Gives::Text, |facts, _| {
        Ok(facts.catalog.schemas().current().into_iter().next().into())
    }),
    ("current_schemas", Gives::Texts, |facts, arguments| {
        let implicit = arguments.first() == Some(&Value::Bool(true));
        let schemas = facts.catalog.schemas();
        let temporary = schemas.temporary().filter(|_| implicit).map(str::to_string);
        let own = temporary.into_iter().chain(implicit.then(|| PG_CATALOG.to_string()));
        Ok(Value::Texts(own.chain(schemas.current()).collect()))
    }),
    ("pg_backend_pid", Gives::Int, |facts, _| Ok(facts.variables().backend.into())),
    ("pg_cancel_backend", Gives::Bool, |facts, arguments| {
        let Some(Value::Int(backend)) = arguments.first() else { return Ok(Value::Null) };
        Ok(facts.jobs.cancel(*backend).into())
    }),
    ("pg_postmaster_start_time", Gives::Time, |facts, _| Ok(facts.variables().since_us.into())),
    ("pg_client_encoding", Gives::Text, |_, _| Ok("UTF8".into())),
    ("getdatabaseencoding", Gives::Text, |_, _| Ok("UTF8".into())),
    ("inet_server_addr", Gives::Text, |facts, _| Ok(address(facts, |(_, server)| ip(server)))),
    ("inet_server_port", Gives::Int, |facts, _| {
        Ok(address(facts, |(_, server)| i64::from(server.port()).into()))
    }),
    ("inet_client_addr", Gives::Text, |facts, _| Ok(address(facts, |(client, _)| ip(client)))),
    ("inet_client_port", Gives::Int, |facts, _| {
        Ok(address(facts, |(client, _)| i64::from(client.port()).into()))
    }),
    // Constants are computed while the statement is planned, on its own task.
    ("current_query", Gives::Text, |_, _| Ok(jobs::current().map(|job| job.text()).into())),
    ("pg_is_in_recovery", Gives::Bool, |_, _| Ok(false.into())),
    ("pg_is_wal_replay_paused", Gives::Bool, |_, _| Ok(false.into())),
    ("pg_my_temp_schema", Gives::Int, |facts, _| {
        let own = facts.catalog.schemas().temporary();
        Ok(own.and_then(|schema| facts.namespace_oid(schema)).unwrap_or(0).into())
    }),
    ("pg_is_other_temp_schema", Gives::Bool, |_, _| Ok(false.into())),
    ("txid_current", Gives::Int, |facts, _| Ok((facts.catalog.version as i64).into())),
    ("pg_jit_available", Gives::Bool, |_, _| Ok(false.into())),
    ("pg_trigger_depth", Gives::Int, |_, _| Ok(0.into())),
    ("pg_blocking_pids", Gives::Texts, |_, _| Ok(Value::Texts(Vec::new()))),
    ("pg_safe_snapshot_blocking_pids", Gives::Texts, |_, _| Ok(Value::Texts(Vec::new()))),
    ("pg_conf_load_time", Gives::Time, |facts, _| Ok(facts.variables().since_us.into())),
    ("pg_current_logfile", Gives::Text, |_, _| Ok(Value::Null)),
    ("pg_notification_queue_usage", Gives::Int, |_, _| Ok(0.into())),
    ("pg_settings_get_flags", Gives::Texts, |_, _| Ok(Value::Null)),
    ("to_regoper", Gives::Int, |_, _| Ok(Value::Null)),
    ("row_security_active", Gives::Bool, |_, _| Ok(false.into())),
    ("pg_stat_get_numscans", Gives::Int, |_, _| Ok(Value::Null)),
    ("has_table_privilege", Gives::Bool, may),
    ("has_any_column_privilege", Gives::Bool, may),
    ("has_column_privilege", Gives::Bool, may),
    ("has_schema_privilege", Gives::Bool, may),
    ("has_database_privilege", Gives::Bool, may),
    ("has_function_privilege", Gives::Bool, may),
    ("has_sequence_privilege", Gives::Bool, may),
    ("has_type_privilege", Gives::Bool, may),
    ("has_tablespace_privilege", Gives::Bool, may),
    ("has_language_privilege", Gives::Bool, may),
    ("has_server_privilege", Gives::Bool, may),
    ("has_foreign_data_wrapper_privilege", Gives::Bool, may),
    ("pg_has_role", Gives::Bool, may),
    ("parse_ident", Gives::Texts, |_, arguments| {
        let parts = text(arguments, 0).and_then(split_name);
        Ok(parts
            .map_or(Value::Null, |(schema, name)| Value::Texts(schema.into_iter().chain([name]).collect())))
    }),
    ("current_setting", Gives::Text, current_setting),
    ("set_config", Gives::Text, set_config),
];

/// Returns a part of the addresses of the client and the server, or NULL if there is no connection.
fn address(facts: &Facts, part: impl Fn((SocketAddr, SocketAddr)) -> Value) -> Value {
    facts.variables().addresses.map_or(Value::Null, part)
}

fn ip(address: SocketAddr) -> Value {
    address.ip().to_canonical().to_string().into()
}

fn user(facts: &Facts, _: &[Value]) -> Result<Value> {
    Ok(facts.variables().user.into())
}

/// The only user has all privileges.
fn may(_: &Facts, arguments: &[Value]) -> Result<Value> {
    Ok(if any_null(arguments) { Value::Null } else { true.into() })
}

fn current_setting(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let Some(name) = text(arguments, 0) else { return Ok(Value::Null) };
    let found = facts.variables().get(name).or_else(|| facts.settings.show(&name.to_lowercase()).ok());
    match found {
        Some(value) => Ok(value.into()),
        None if arguments.get(1) == Some(&Value::Bool(true)) => Ok(Value::Null),
        None => Err(Settings::unknown(name)),
    }
}

/// Sets one of the session's settings. The engine's settings need SET.
fn set_config(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let (Some(name), Some(value)) = (text(arguments, 0), text(arguments, 1)) else { return Ok(Value::Null) };
    if Settings::knows(name) {
        return Err(Error::unsupported(format!("set_config of the engine's setting {name}"))
            .hint(format!("Use SET {name} = '{value}'.")));
    }
    let local = arguments.get(2) == Some(&Value::Bool(true));
    let lasts = if local { Lasts::Transaction } else { Lasts::Session };
    let mut variables = facts.variables.lock().unwrap_or_else(PoisonError::into_inner);
    if local && !variables.is_within() {
        // As in PostgreSQL, the value holds for this statement only, which has read it by now.
        return Ok(value.into());
    }
    if find(name).is_some() {
        variables.set(name, value, lasts)?;
    } else if name.contains('.') {
        variables.set_own(name, value, lasts);
    } else {
        return Err(Settings::unknown(name));
    }
    Ok(variables.get(name).into())
}
