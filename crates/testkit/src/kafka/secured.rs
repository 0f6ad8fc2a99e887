//! A broker with listeners that want TLS, certificates of clients, or passwords.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Kafka, free_port};
use crate::drive::Result;

/// A broker whose secured listeners use certificates of an authority of its own. Dropping the value stops it.
#[derive(Debug)]
pub struct Secured {
    /// The broker.
    pub kafka: Kafka,
    sasl: u16,
    mutual: u16,
}

/// The user of all mechanisms.
const USER: &str = "reader";

impl Secured {
    /// The password of PLAIN and SCRAM, which no message may show.
    pub const PASSWORD: &str = "correct-horse";
    /// The password of the client's key.
    pub const KEY_PASSWORD: &str = "battery-staple";

    /// Starts a broker. If it or the program `openssl` isn't installed, prints a note to standard error and returns `None`.
    pub fn start() -> Result<Option<Secured>> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: the program openssl isn't installed");
            return Ok(None);
        }
        let Some(mut kafka) = Kafka::prepare()? else { return Ok(None) };
        let (sasl, mutual) = (free_port()?, free_port()?);
        certificates(kafka.folder.path())?;
        let properties = properties(kafka.folder.path(), kafka.port, sasl, mutual);
        let user = |mechanism: &str| format!("{mechanism}=[name={USER},password={}]", Secured::PASSWORD);
        let (small, large) = (user("SCRAM-SHA-256"), user("SCRAM-SHA-512"));
        let listeners = format!(",SASL://127.0.0.1:{sasl},MUTUAL://127.0.0.1:{mutual}");
        kafka.configure(&listeners, &properties, &["--add-scram", &small, "--add-scram", &large])?;
        kafka.begin()?;
        Ok(Some(Secured { kafka, sasl, mutual }))
    }

    /// Returns the address of the listener that wants a user and a password.
    pub fn sasl(&self) -> String {
        format!("127.0.0.1:{}", self.sasl)
    }

    /// Returns the address of the listener that wants a client's certificate.
    pub fn mutual(&self) -> String {
        format!("127.0.0.1:{}", self.mutual)
    }

    /// Returns the path of a file: `ca.pem`, `client.pem` and `client.key`, or `other-ca.pem`, which has signed nothing.
    pub fn file(&self, name: &str) -> PathBuf {
        self.kafka.folder.path().join(name)
    }
}

/// Creates an authority, and keys with certificates for the broker and for a client.
fn certificates(folder: &Path) -> Result<()> {
    std::fs::write(folder.join("san.txt"), "subjectAltName=IP:127.0.0.1\n")
        .map_err(|error| error.to_string())?;
    for authority in ["ca", "other-ca"] {
        let (key, certificate) = (format!("{authority}.key"), format!("{authority}.pem"));
        let subject = format!("/CN={authority}");
        openssl(
            folder,
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "30",
                "-subj",
                &subject,
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        )?;
    }
    for name in ["broker", "client"] {
        let (key, request, certificate) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let (subject, pass) = (format!("/CN={name}"), format!("pass:{}", Secured::KEY_PASSWORD));
        let mut new =
            vec!["req", "-newkey", "rsa:2048", "-subj", &subject, "-keyout", &key, "-out", &request];
        new.extend(if name == "client" { vec!["-passout", &pass] } else { vec!["-nodes"] });
        openssl(folder, &new)?;
        openssl(
            folder,
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "30",
                "-extfile",
                "san.txt",
                "-out",
                &certificate,
            ],
        )?;
    }
    // The broker reads its key and its certificate from one file.
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|error| error.to_string());
    let both = format!("{}{}", read("broker.key")?, read("broker.pem")?);
    std::fs::write(folder.join("keystore.pem"), both).map_err(|error| error.to_string())
}

fn openssl(folder: &Path, arguments: &[&str]) -> Result<()> {
    let done = Command::new("openssl").args(arguments).current_dir(folder).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("openssl: {error}")),
    }
}

fn properties(folder: &Path, port: u16, sasl: u16, mutual: u16) -> String {
    let (folder, password) = (folder.display(), Secured::PASSWORD);
    let module = "org.apache.kafka.common.security";
    [
        // Of a property that is given twice, the last value counts.
        format!(
            "advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},MUTUAL://127.0.0.1:{mutual}"
        ),
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL".into(),
        format!("ssl.keystore.type=PEM\nssl.keystore.location={folder}/keystore.pem"),
        format!("ssl.truststore.type=PEM\nssl.truststore.location={folder}/ca.pem"),
        "listener.name.mutual.ssl.client.auth=required".into(),
        "listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".into(),
        format!(
            "listener.name.sasl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required \
             user_{USER}=\"{password}\";"
        ),
        format!("listener.name.sasl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
        format!("listener.name.sasl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
        format!(
            "listener.name.sasl.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"broker\";\n"
        ),
        // A client must show a token that lives before this time is over.
        "listener.name.sasl.oauthbearer.connections.max.reauth.ms=5000".into(),
    ]
    .join("\n")
}
