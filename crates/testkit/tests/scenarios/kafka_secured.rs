//! A broker of Kafka that wants TLS, certificates of clients, or passwords.

use millstream_testkit::drive::{self, Result, ensure, expect_soon, lines, run, run_all};
use millstream_testkit::kafka::Secured;

use super::Scenario;
use super::kafka_operation::{builder, numbered};

pub const ALL: &[Scenario] = &[
    ("kafka_is_read_and_written_over_tls_and_sasl", || drive::block_on(secured())),
    ("kafka_says_why_a_broker_refuses", || drive::block_on(refused())),
];

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
    kafka.send("t", &numbered(0..10, 2))?;
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
    let engine = builder().start().map_err(|error| error.to_string())?;
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
    kafka.send("t", &numbered(10..20, 2))?;
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
    let engine = builder().start().map_err(|error| error.to_string())?;
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
