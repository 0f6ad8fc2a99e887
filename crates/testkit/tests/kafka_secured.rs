//! A broker of Kafka that wants TLS, certificates of clients, or passwords.
//!
//! A test of its own, since the feature `tls` compiles it a second time.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Arguments;
use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect_soon, lines, run, run_all};
use millstream_testkit::kafka::{Secured, Sent};
use millstream_testkit::tokens::TokenServer;
use millstream_testkit::watchdog::trial;

fn main() -> ExitCode {
    let trials = vec![
        trial("is_read_and_written", || drive::block_on(secured())),
        trial("says_why_it_refuses", || drive::block_on(refused())),
        trial("takes_tokens_of_an_endpoint", || drive::block_on(tokens())),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn start_engine() -> Result<Engine> {
    Engine::builder().connector(Arc::new(millstream_kafka::Kafka)).start().map_err(|error| error.to_string())
}

/// Returns the options of an object at a listener.
fn at(servers: &str, topic: &str, properties: &str) -> String {
    format!(
        "WITH (connector = 'kafka', topic = '{topic}', format = 'json', \
         properties.bootstrap.servers = '{servers}'{properties})"
    )
}

/// Returns the properties of a mechanism with user and password.
fn by_password(secured: &Secured, mechanism: &str) -> String {
    format!(
        ", properties.security.protocol = 'SASL_SSL', properties.sasl.mechanism = '{mechanism}', \
         properties.sasl.username = 'reader', properties.sasl.password = '{}', properties.ssl.ca.location = '{}'",
        Secured::PASSWORD,
        secured.file("ca.pem").display()
    )
}

/// Returns the properties with a client's certificate: in files, or as texts.
fn by_certificate(secured: &Secured, as_texts: bool) -> Result<String> {
    let password = format!(", properties.ssl.key.password = '{}'", Secured::KEY_PASSWORD);
    let names = [("ca", "ca.pem"), ("certificate", "client.pem"), ("key", "client.key")];
    let mut properties = format!(", properties.security.protocol = 'ssl'{password}");
    for (property, file) in names {
        let path = secured.file(file);
        properties += &match as_texts {
            true => {
                let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
                format!(", properties.ssl.{property}.pem = '{text}'")
            }
            false => format!(", properties.ssl.{property}.location = '{}'", path.display()),
        };
    }
    Ok(properties)
}

/// Starts the broker, if this build of the tests has TLS.
fn start() -> Result<Option<Secured>> {
    match cfg!(feature = "tls") {
        true => Secured::start(),
        false => {
            eprintln!(
                "skipped: TLS and SASL of Kafka need the feature millstream-testkit/tls, which needs perl to build"
            );
            Ok(None)
        }
    }
}

async fn secured() -> Result<()> {
    let Some(secured) = start()? else { return Ok(()) };
    let kafka = &secured.kafka;
    kafka.create_topic("t", 2).await?;
    kafka.send("t", &Sent::numbered(0..10, 2))?;
    let token = format!(
        ", properties.security.protocol = 'SASL_SSL', properties.sasl.mechanism = 'OAUTHBEARER', \
         properties.enable.sasl.oauthbearer.unsecure.jwt = 'true', \
         properties.sasl.oauthbearer.config = 'principal=reader', properties.ssl.ca.location = '{}'",
        secured.file("ca.pem").display()
    );
    let ways = [
        ("plain", secured.sasl(), by_password(&secured, "PLAIN")),
        ("scram_256", secured.sasl(), by_password(&secured, "SCRAM-SHA-256")),
        ("scram_512", secured.sasl(), by_password(&secured, "SCRAM-SHA-512")),
        ("token", secured.sasl(), token),
        ("certificate", secured.mutual(), by_certificate(&secured, false)?),
        ("texts", secured.mutual(), by_certificate(&secured, true)?),
    ];
    let engine = start_engine()?;
    let mut session = engine.session();
    for (name, servers, properties) in &ways {
        let source = format!("CREATE SOURCE s_{name} (id BIGINT) {}", at(servers, "t", properties));
        let view =
            format!("CREATE MATERIALIZED VIEW m_{name} AS SELECT count(*) AS n, sum(id) AS s FROM s_{name}");
        kafka.create_topic(&format!("to_{name}"), 1).await?;
        let to = at(servers, &format!("to_{name}"), properties);
        let sink = format!("CREATE SINK k_{name} AS SELECT id FROM s_{name} {to}");
        run_all(&mut session, &[&source, &view, &sink]).await.map_err(|error| format!("{name}: {error}"))?;
        expect_soon(&mut session, &format!("SELECT * FROM m_{name}"), &["10|45"])
            .await
            .map_err(|error| format!("{name}: {error}"))?;
        let written = format!("SELECT rows FROM millstream.sinks WHERE name = 'k_{name}'");
        expect_soon(&mut session, &written, &["10"]).await.map_err(|error| format!("{name}: {error}"))?;
        let received = kafka.received(&format!("to_{name}"))?.len();
        ensure(received == 10, || format!("the sink by {name} has written {received} records"))?;
        // Nothing shows the secrets.
        for object in [format!("SHOW CREATE SOURCE s_{name}"), format!("SHOW CREATE SINK k_{name}")] {
            let shown = lines(&mut session, &object).await?.join("\n");
            let secrets = [Secured::PASSWORD, Secured::KEY_PASSWORD, "PRIVATE KEY"];
            let found = secrets.iter().find(|secret| shown.contains(**secret));
            ensure(found.is_none() && shown.contains("security.protocol"), || {
                format!("{object} gives {shown}")
            })?;
        }
    }
    // Reading goes on through all of them.
    kafka.send("t", &Sent::numbered(10..20, 2))?;
    for (name, ..) in &ways {
        expect_soon(&mut session, &format!("SELECT * FROM m_{name}"), &["20|190"]).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn refused() -> Result<()> {
    let Some(secured) = start()? else { return Ok(()) };
    secured.kafka.create_topic("t", 1).await?;
    let other_ca = secured.file("other-ca.pem").display().to_string();
    let ca = secured.file("ca.pem").display().to_string();
    let good = by_password(&secured, "SCRAM-SHA-512");
    let cases = [
        ("s_password", secured.sasl(), good.replace(Secured::PASSWORD, "wrong-horse"), "authentication"),
        ("s_authority", secured.sasl(), good.replace(&ca, &other_ca), "topic ''t'' can''t be found"),
        ("s_plaintext", secured.sasl(), String::new(), "topic ''t'' can''t be found"),
    ];
    let engine = start_engine()?;
    let mut session = engine.session();
    for (name, servers, properties, _) in &cases {
        let source = format!("CREATE SOURCE {name} (id BIGINT) {}", at(servers, "t", properties));
        let view = format!("CREATE MATERIALIZED VIEW of_{name} AS SELECT count(*) AS n FROM {name}");
        run_all(&mut session, &[&source, &view]).await?;
    }
    for (name, _, _, what) in &cases {
        let why =
            format!("SELECT lower(reason) LIKE '%{what}%' FROM millstream.sources WHERE name = '{name}'");
        let said = expect_soon(&mut session, &why, &["true"]).await;
        let reasons = "SELECT name, status, reason FROM millstream.sources";
        let reasons = lines(&mut session, reasons).await?.join("\n");
        said.map_err(|error| format!("{name}: {error}\n{reasons}"))?;
        ensure(!reasons.contains("wrong-horse"), || format!("a password is shown: {reasons}"))?;
    }
    // A file that isn't there, a mechanism that doesn't exist, and a key whose password is wrong are known at once.
    for (properties, what) in [
        (good.replace(&ca, "/nowhere/ca.pem"), "ssl.ca.location"),
        (by_password(&secured, "SCRAM-SHA-1024"), "SCRAM-SHA-1024"),
        (by_certificate(&secured, false)?.replace(Secured::KEY_PASSWORD, "wrong-staple"), "ssl.key.location"),
    ] {
        let source = format!("CREATE SOURCE wrong (id BIGINT) {}", at(&secured.sasl(), "t", &properties));
        let error = run(&mut session, &source).await.err().unwrap_or_default();
        let message = error.split("\n  in: ").next().unwrap_or_default();
        ensure(message.contains(what), || format!("{properties} gives {message:?}"))?;
        let shows = [Secured::PASSWORD, "wrong-staple"].iter().any(|secret| message.contains(secret));
        ensure(!shows, || format!("a password is shown: {message}"))?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// Returns the properties of a client that asks an endpoint for tokens.
fn by_token(secured: &Secured, tokens: &TokenServer, secret: &str) -> String {
    format!(
        ", properties.security.protocol = 'SASL_SSL', properties.sasl.mechanism = 'OAUTHBEARER', \
         properties.sasl.oauthbearer.method = 'oidc', properties.sasl.oauthbearer.scope = 'kafka', \
         properties.sasl.oauthbearer.client.id = '{}', properties.sasl.oauthbearer.client.secret = '{secret}', \
         properties.sasl.oauthbearer.token.endpoint.url = '{}', properties.ssl.ca.location = '{}'",
        TokenServer::CLIENT,
        tokens.address(),
        secured.file("ca.pem").display()
    )
}

async fn tokens() -> Result<()> {
    let Some(secured) = start()? else { return Ok(()) };
    let tokens = TokenServer::start(Duration::from_secs(10))?;
    let kafka = &secured.kafka;
    kafka.create_topic("t", 2).await?;
    kafka.create_topic("to", 1).await?;
    kafka.send("t", &Sent::numbered(0..10, 2))?;
    let good = by_token(&secured, &tokens, TokenServer::SECRET);
    let engine = start_engine()?;
    let mut session = engine.session();
    let made = [
        &format!("CREATE SOURCE s (id BIGINT) {}", at(&secured.sasl(), "t", &good)),
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM s",
        &format!("CREATE SINK k AS SELECT id FROM s {}", at(&secured.sasl(), "to", &good)),
    ];
    run_all(&mut session, &made).await?;
    // The broker wants a token again every 5 seconds, and a token lives for 10. The endpoint is away for 3 of them.
    let (begun, mut sent) = (Instant::now(), 10);
    while begun.elapsed() < Duration::from_secs(25) {
        tokens.set_failing((12..15).contains(&begun.elapsed().as_secs()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        kafka.send("t", &Sent::numbered(sent..sent + 10, 2))?;
        sent += 10;
    }
    expect_soon(&mut session, "SELECT * FROM m", &[&sent.to_string()]).await?;
    let written = "SELECT rows, status FROM millstream.sinks";
    expect_soon(&mut session, written, &[&format!("{sent}|running")]).await?;
    let received = kafka.received("to")?.len();
    ensure(received as i64 == sent, || format!("the sink has written {received} of {sent} records"))?;
    ensure(tokens.given() >= 5, || format!("{} tokens were given", tokens.given()))?;
    // A secret that is wrong, and an endpoint that is away.
    let wrong = by_token(&secured, &tokens, "wrong-secret");
    let nowhere = good.replace(&tokens.address(), "http://127.0.0.1:1/token");
    for (name, properties, what) in [
        ("s_secret", &wrong, "invalid_client: no such client): check sasl.oauthbearer.client.id"),
        ("s_nowhere", &nowhere, "the token endpoint doesn''t answer at http://127.0.0.1:1/token"),
    ] {
        let source = format!("CREATE SOURCE {name} (id BIGINT) {}", at(&secured.sasl(), "t", properties));
        let view = format!("CREATE MATERIALIZED VIEW of_{name} AS SELECT count(*) AS n FROM {name}");
        run_all(&mut session, &[&source, &view]).await?;
        let why = format!("SELECT reason LIKE '%{what}%' FROM millstream.sources WHERE name = '{name}'");
        let said = expect_soon(&mut session, &why, &["true"]).await;
        let reasons =
            lines(&mut session, "SELECT name, status, reason FROM millstream.sources").await?.join("\n");
        said.map_err(|error| format!("{name}: {error}\n{reasons}"))?;
        let sink = format!("CREATE SINK wrong AS SELECT id FROM s {}", at(&secured.sasl(), "to", properties));
        let error = run(&mut session, &sink).await.err().unwrap_or_default();
        ensure(error.contains("token endpoint"), || format!("{sink} gives {error}"))?;
        let shown = lines(&mut session, &format!("SHOW CREATE SOURCE {name}")).await?.join("\n");
        let secrets = [TokenServer::SECRET, "wrong-secret"];
        ensure(!secrets.iter().any(|secret| (reasons.clone() + &shown).contains(secret)), || {
            format!("a secret is shown: {reasons} {shown}")
        })?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}
