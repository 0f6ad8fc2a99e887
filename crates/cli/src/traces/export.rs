//! The listener that makes spans of batches and sends them to a collector.
//!
//! A batch is a trace of its own: the span `batch`, below it a span for each query that ran, and below these one for each
//! operator. The delivery of a sink is a span in the trace of the last batch that it delivers. A checkpoint is a trace with a
//! link to the last batch that it contains. OpenTelemetry's variables choose the collector, its headers, the share of traces
//! (`OTEL_TRACES_SAMPLER`) and the size of what waits (`OTEL_BSP_MAX_QUEUE_SIZE`); spans beyond it are dropped.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use millstream::{Batch, BatchWork, CheckpointWritten, Listener, OperatorStep, SinkDelivery};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::{Handle, Runtime};

/// The number of past batches whose traces deliveries of sinks may join.
const BATCHES_MAX: usize = 1000;

/// The time for which the end of the program waits until spans are sent.
const FINISH: Duration = Duration::from_secs(5);

/// The time after which a request to the collector is given up, unless a variable says otherwise.
const REQUEST: Duration = Duration::from_secs(10);

/// Closed when the listener has heard everything and has sent its spans.
static SENT: Mutex<Option<Receiver<()>>> = Mutex::new(None);

/// Makes spans of what an engine does.
pub(super) struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    /// The traces of past batches, oldest first.
    batches: VecDeque<(u64, SpanContext)>,
    /// The times at which epochs were handed to sinks, by sink and last epoch.
    handed: BTreeMap<Arc<str>, VecDeque<(u64, SystemTime)>>,
    /// The runtime of the requests.
    runtime: Option<Runtime>,
    /// Dropped last.
    _sent: Sender<()>,
}

/// Starts to send spans to the collector that the environment names.
pub(super) fn start() -> Result<Traces, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("millstream-otlp")
        .enable_all()
        .build()?;
    let client = Client {
        client: reqwest::Client::builder().timeout(REQUEST).build()?,
        handle: runtime.handle().clone(),
    };
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build()?;
    // The variables OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count more.
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut resource = Resource::builder().with_attribute(version);
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("millstream");
    }
    let provider =
        SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
    let (sent, receiver) = channel();
    *SENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
    Ok(Traces::new(provider, Some(runtime), sent))
}

/// Waits until all spans are sent.
pub(super) fn finish() {
    let receiver = SENT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(receiver) = receiver
        && receiver.recv_timeout(FINISH) == Err(RecvTimeoutError::Timeout)
    {
        tracing::warn!(
            "the last traces are not sent: the collector takes longer than {} s",
            FINISH.as_secs()
        );
    }
}

impl Traces {
    fn new(provider: SdkTracerProvider, runtime: Option<Runtime>, sent: Sender<()>) -> Traces {
        let tracer = provider.tracer("millstream");
        let (batches, handed) = (VecDeque::new(), BTreeMap::new());
        Traces { tracer, provider, batches, handed, runtime, _sent: sent }
    }

    /// Makes a span between two times, below another one if there is one.
    fn span(&self, span: SpanBuilder, ended: SystemTime, parent: &Context) -> SpanContext {
        self.span_of(span, ended, parent, None)
    }

    /// Makes the span of something that may have failed.
    fn span_of(
        &self,
        span: SpanBuilder,
        ended: SystemTime,
        parent: &Context,
        failure: Option<&str>,
    ) -> SpanContext {
        let mut span = self.tracer.build_with_context(span.with_kind(SpanKind::Internal), parent);
        if let Some(failure) = failure {
            span.set_status(Status::error(failure.to_string()));
        }
        let context = span.span_context().clone();
        span.end_with_timestamp(ended);
        context
    }

    fn trace_of(&self, epoch: u64) -> Option<SpanContext> {
        let found = self.batches.binary_search_by_key(&epoch, |(epoch, _)| *epoch).ok()?;
        self.batches.get(found).map(|(_, context)| context.clone())
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces are not sent");
        }
        // An engine that can't start drops its listeners where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Returns a span with its start.
fn started(name: String, started: SystemTime, attributes: Vec<KeyValue>) -> SpanBuilder {
    SpanBuilder::from_name(name).with_start_time(started).with_attributes(attributes)
}

fn number(name: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(name, value.try_into().unwrap_or(i64::MAX))
}

impl Listener for Traces {
    fn wants_operators(&self) -> bool {
        true
    }

    fn batch_operators(&mut self, batch: &Batch, work: &BatchWork) {
        let BatchWork { started: began, steps } = work;
        let ended = *began + batch.processing_time;
        let mut attributes = vec![
            number("millstream.epoch", batch.epoch.0),
            KeyValue::new("millstream.batch_time", batch.time.to_string()),
            number("millstream.input_rows", batch.input_rows()),
            number("millstream.output_rows", batch.output_rows),
            number("millstream.scheduling_delay_us", batch.scheduling_delay.as_micros()),
        ];
        attributes.extend(batch.inputs.iter().map(|(source, rows)| {
            KeyValue::new(format!("millstream.input_rows.{source}"), i64::try_from(*rows).unwrap_or(i64::MAX))
        }));
        let context = self.span(started("batch".into(), *began, attributes), ended, &Context::new());
        let root = Context::new().with_remote_span_context(context.clone());
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back((batch.epoch.0, context));
        let mut queries: BTreeMap<&str, Vec<&OperatorStep>> = BTreeMap::new();
        for step in steps {
            queries.entry(&step.query).or_default().push(step);
        }
        for (query, steps) in queries {
            let first = steps.iter().map(|step| step.started).min().unwrap_or(*began);
            let ended = steps.iter().map(|step| step.started + step.time).max().unwrap_or(first);
            let attributes = vec![KeyValue::new("millstream.query", query.to_string())];
            let of_query = self.span(started(format!("query {query}"), first, attributes), ended, &root);
            let below = Context::new().with_remote_span_context(of_query);
            for step in steps {
                let attributes = vec![
                    number("millstream.operator", step.node as u64),
                    number("millstream.rows_in", step.rows_in),
                    number("millstream.rows_out", step.rows_out),
                ];
                let span = started(step.operator.to_string(), step.started, attributes);
                self.span(span, step.started + step.time, &below);
            }
        }
    }

    fn sink_started(&mut self, delivery: &SinkDelivery) {
        let handed = self.handed.entry(delivery.sink.clone()).or_default();
        if handed.len() == BATCHES_MAX {
            handed.pop_front();
        }
        handed.push_back((delivery.through.0, SystemTime::now()));
    }

    fn sink_completed(&mut self, delivery: &SinkDelivery) {
        let now = SystemTime::now();
        let handed = self.handed.entry(delivery.sink.clone()).or_default();
        let first = handed.iter().find(|(through, _)| *through >= delivery.from.0).map_or(now, |(_, at)| *at);
        if delivery.failure.is_none() {
            handed.retain(|(through, _)| *through > delivery.through.0);
        }
        if handed.is_empty() || delivery.is_lasting {
            self.handed.remove(&delivery.sink);
        }
        let attributes = vec![
            KeyValue::new("millstream.sink", delivery.sink.to_string()),
            number("millstream.from_epoch", delivery.from.0),
            number("millstream.through_epoch", delivery.through.0),
            number("millstream.rows", delivery.rows),
        ];
        let span = started(format!("sink {}", delivery.sink), first, attributes);
        let parent = self.trace_of(delivery.through.0);
        let parent = parent.map_or_else(Context::new, |of| Context::new().with_remote_span_context(of));
        self.span_of(span, now, &parent, delivery.failure.as_deref());
    }

    fn checkpoint_completed(&mut self, checkpoint: &CheckpointWritten) {
        let attributes = vec![
            number("millstream.epoch", checkpoint.epoch.0),
            number("millstream.bytes", checkpoint.bytes),
            number("millstream.stopped_us", checkpoint.stopped.as_micros()),
        ];
        let links = self.trace_of(checkpoint.epoch.0).map(Link::with_context).into_iter().collect();
        let span = started("checkpoint".into(), checkpoint.started, attributes).with_links(links);
        let ended = checkpoint.started + checkpoint.took;
        self.span_of(span, ended, &Context::new(), checkpoint.failure.as_deref());
    }

    fn missed(&mut self, count: u64) {
        tracing::warn!(count, "events are missing in the traces: they came faster than spans are made");
    }
}

/// The HTTP client of requests, which run on a runtime of their own.
#[derive(Clone, Debug)]
struct Client {
    client: reqwest::Client,
    handle: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let send = self.handle.spawn(async move {
            let response = client.execute(request.try_into()?).await?;
            let mut found = Response::builder().status(response.status());
            if let Some(headers) = found.headers_mut() {
                *headers = response.headers().clone();
            }
            Ok::<_, HttpError>(found.body(response.bytes().await?)?)
        });
        send.await?
    }
}
