//! Traces of batches over OTLP, if OpenTelemetry's standard variables name a collector and the build has the feature `otlp`.

#[cfg(feature = "otlp")]
mod export;

use millstream::EngineBuilder;

/// The variables that name a collector. The first one is for traces alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The variables that switch traces off, each with its value.
const OFF: [(&str, &str); 2] = [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")];

/// Returns the variable that names a collector, if traces are wanted.
fn wanted(variable: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let is_off =
        OFF.iter().any(|(name, value)| variable(name).is_some_and(|set| set.eq_ignore_ascii_case(value)));
    let named =
        ENDPOINTS.into_iter().find(|name| variable(name).is_some_and(|endpoint| !endpoint.is_empty()));
    named.filter(|_| !is_off)
}

/// Adds a listener that sends traces, if they are wanted.
pub(crate) fn listen(builder: EngineBuilder) -> EngineBuilder {
    let Some(variable) = wanted(|name| std::env::var(name).ok()) else { return builder };
    #[cfg(feature = "otlp")]
    match export::start() {
        Ok(traces) => return builder.listener(traces),
        Err(error) => {
            tracing::warn!(%error, "no traces are sent: the exporter that {variable} asks for can't be made")
        }
    }
    #[cfg(not(feature = "otlp"))]
    tracing::warn!("{variable} is set, but this build sends no traces: build it with --features otlp");
    builder
}

/// Waits until the traces of an engine that has stopped are sent, for a few seconds at most.
pub(crate) fn finish() {
    #[cfg(feature = "otlp")]
    export::finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_variables_switch_traces_on_and_off() {
        let set = |set: &'static [(&str, &str)]| {
            wanted(|name| set.iter().find(|(of, _)| *of == name).map(|(_, value)| value.to_string()))
        };
        assert_eq!(set(&[]), None);
        assert_eq!(set(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        assert_eq!(wanted(|name| (name == general.0).then(|| general.1.to_string())), Some(general.0));
        assert_eq!(set(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "a"), ("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(
            set(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "a"), ("OTEL_TRACES_EXPORTER", "none")]),
            None
        );
    }
}
