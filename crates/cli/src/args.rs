//! Parses the command line.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::logging::LogFormat;
use crate::place::Place;
use crate::stop::Stop;
use crate::top;
use crate::web::Ui;
use crate::{serve, variables};

const EXAMPLES: &str = "\
Examples:
  millstream                                          a shell; \\? there shows its help
  millstream -c 'SELECT 1 + 1'                        one statement, or several with ; between them
  millstream -q -c '.mode csv' -c 'SELECT 1 AS x'     rows as CSV; all commands of the shell can be given
  millstream run app.sql                              a script, then its sources to their end
  millstream run app.sql --set path=logs/             :'path' in the script is then 'logs/'
  cat app.sql | millstream run -                      the same from standard input
  millstream server app.sql                           the same for PostgreSQL clients, on 127.0.0.1:4777, with a web page
                                                      on http://127.0.0.1:4778/
  millstream --data state run app.sql                 continues where it stopped, also after a crash
  millstream --data s3://bucket/app run app.sql       the same on an object store, from any machine
  millstream inspect state                            lists the contents and checks them
  millstream top                                      how the server at 127.0.0.1:4777 is doing, on a full screen
  millstream top --host 127.0.0.1:5000 --once         the same of another server, once, as text
  millstream test sql-tests                           every .slt file below a directory
  millstream test sql-tests join --complete           rewrites what those named *join* expect

Exit codes:
  0    all went well, or a script that follows its sources was ended by a signal
  1    a statement or a test failed
  2    the command line was wrong
  3    something outside failed: a file that can't be read, a disk that is full
  4    a signal asked it to end, and the engine had not stopped 5 seconds after shutdown_timeout
  130  interrupted before the end, or ended at once by a second signal

Environment:
  MILLSTREAM_HISTORY   the file in which the shell keeps what was typed; empty: none
  PAGER                what shows long results at a terminal; empty: nothing
  VISUAL, EDITOR       what \\e edits with
  AWS_…                how to reach the object store of --data: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
                       AWS_ENDPOINT, and others of the crate object_store
  MILLSTREAM_LOG       the least severe messages of the log, on standard error: warn where it isn't set; info, debug, off,
                       or by module: warn,millstream_engine=debug
  MILLSTREAM_LOG_FORMAT  text or json, as --log-format
  PGUSER, PGPASSWORD   the user as whom top connects
  NO_COLOR             no colours, where it is set

Statements of one script that create or drop objects take effect together. Variables are :'name' (a string),
:\"name\" (a quoted name) and :name (as it is).";

/// Streaming SQL over files: what a query answers once, it answers for ever, and stays right as data arrives.
#[derive(Debug, Parser)]
#[command(name = "millstream", bin_name = "millstream", version, after_help = EXAMPLES, max_term_width = 100)]
struct Arguments {
    /// Run this SQL, or a command of the shell, and end; may be given several times
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    commands: Vec<String>,
    /// Write the log and all messages on standard error as text, or as JSON with one object a line
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<LogFormat>,
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    subcommand: Option<Sub>,
}

/// The options that may be given before or after a subcommand.
#[derive(clap::Args, Debug, Default)]
struct Shared {
    /// Set a variable for the SQL, and the engine's setting of this name, such as memory_limit (SHOW ALL lists them), which
    /// the data directory keeps for later starts; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Let state go to files beyond so many bytes of memory, such as 2GB; none: no limit. The same as --set
    /// memory_limit=BYTES
    #[arg(long, value_name = "BYTES")]
    memory_limit: Option<String>,
    /// Print rows and errors only
    #[arg(short, long)]
    quiet: bool,
    /// Use no colours (so does NO_COLOR=1, and output that is no terminal)
    #[arg(long)]
    no_color: bool,
    /// Survive crashes: keep all durable state in this directory, or
    /// below s3://BUCKET/PREFIX, and continue from it
    #[arg(long, value_name = "DIR|URL")]
    data: Option<PathBuf>,
    /// Set an option of the object store of --data, such as region or endpoint; secrets are better in the environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = store_option)]
    data_option: Vec<(String, String)>,
    /// Fail if what --data names doesn't exist yet
    #[arg(long)]
    must_exist: bool,
    /// Pass over records of Kafka that were lost, as on_data_loss = 'skip' does, in all sources of this run: a start then
    /// goes on without records that it needs again
    #[arg(long)]
    skip_lost_records: bool,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Run a script of SQL until its bounded sources have ended, or until a signal
    Run {
        /// The file; - is standard input
        #[arg(value_name = "FILE")]
        script: PathBuf,
        /// Serve the web page there while the script runs; only this machine's own addresses
        #[arg(long, value_name = "HOST:PORT|none")]
        ui: Option<String>,
        #[command(flatten)]
        shared: Shared,
    },
    /// Serve PostgreSQL clients (psql, JDBC, Python, …) until a signal or STOP
    Server {
        /// Where to listen; only this machine's own addresses
        #[arg(long, value_name = "HOST:PORT", default_value = serve::ADDRESS)]
        listen: String,
        /// Where to serve the web page, 127.0.0.1:4778 if not given; none: no page
        #[arg(long, value_name = "HOST:PORT|none")]
        ui: Option<String>,
        /// A script to run first
        #[arg(value_name = "FILE")]
        script: Option<PathBuf>,
        #[command(flatten)]
        shared: Shared,
    },
    /// List the contents of a data directory, and check them
    Inspect {
        /// The directory, which no process may have open, or s3://BUCKET/PREFIX
        #[arg(value_name = "DIR|URL")]
        place: PathBuf,
        /// Set an option of the object store
        #[arg(long, value_name = "NAME=VALUE", value_parser = store_option)]
        data_option: Vec<(String, String)>,
    },
    /// Show how a server is doing: rates, delays, state, health, and its queries, sources and sinks
    Top {
        /// The server, as it prints its address; port 4777 if only a host is given
        #[arg(long, value_name = "HOST:PORT", default_value = serve::ADDRESS)]
        host: String,
        /// Print the figures once, as text (so does output that is no terminal)
        #[arg(long)]
        once: bool,
        /// Seconds between two readings, from 0.1 to 3600; rates are those of one interval
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: Duration,
        /// Use no colours (so does NO_COLOR=1)
        #[arg(long)]
        no_color: bool,
    },
    /// Run test suites (.slt files), each in a fresh engine
    Test {
        /// Files, or directories to look for .slt files in; a last word that is neither is a filter on their
        /// paths
        #[arg(value_name = "DIR|FILE", required = true)]
        paths: Vec<PathBuf>,
        /// Rewrite the expected results in the files to the actual ones
        #[arg(long)]
        complete: bool,
        /// Name failures only
        #[arg(short, long)]
        quiet: bool,
    },
}

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The work to do.
    pub action: Action,
    /// Variables, in the order given.
    pub variables: Vec<(String, String)>,
    /// True to print rows and errors only.
    pub quiet: bool,
    /// True to use no colours, whatever the terminal supports.
    pub no_color: bool,
    /// The data directory or store.
    pub data: Option<Place>,
    /// The web page.
    pub ui: Ui,
    /// The format of the log, if it is given.
    pub log_format: Option<LogFormat>,
}

/// The kinds of work.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Run these texts one after the other.
    Commands(Vec<String>),
    /// Run a script; `None` is standard input.
    Script(Option<PathBuf>),
    /// List the content of a data directory.
    Inspect(Place),
    /// Run test suites.
    Test {
        /// Files and directories, all of which exist.
        paths: Vec<PathBuf>,
        /// A text that a file's path must contain.
        filter: Option<String>,
        /// True to rewrite the results that the files expect.
        complete: bool,
    },
    /// Serve PostgreSQL clients, after a script.
    Serve {
        /// The address to listen on.
        listen: String,
        /// The script to run first.
        script: Option<PathBuf>,
    },
    /// Run the interactive shell.
    Shell,
    /// Show how a server is doing.
    Top(top::Options),
}

/// Reads the program's arguments. `Err` is help, a version, or a mistake, which clap prints with its exit
/// code.
pub fn read() -> Result<Result<Request, Stop>, clap::Error> {
    let arguments = Arguments::try_parse().map_err(with_tip)?;
    Ok(request(arguments, std::io::stdin().is_terminal()))
}

fn request(arguments: Arguments, terminal: bool) -> Result<Request, Stop> {
    let Arguments { commands, log_format, shared, subcommand } = arguments;
    let mut all = shared;
    let mut page = Ui::Off;
    let action = match subcommand {
        Some(_) if !commands.is_empty() => {
            return Err(Stop::Usage(
                "-c runs SQL by itself: it can't be given with run, server, inspect, top or test".to_owned(),
            ));
        }
        Some(Sub::Run { script, ui, shared }) => {
            all.add(shared);
            page = Ui::of(ui, Ui::Off);
            Action::Script(Some(script).filter(|script| script.as_os_str() != "-"))
        }
        Some(Sub::Server { listen, ui, script, shared }) => {
            all.add(shared);
            page = Ui::of(ui, Ui::Usual);
            Action::Serve { listen, script }
        }
        Some(Sub::Top { host, once, interval, no_color }) => {
            all.no_color |= no_color;
            Action::Top(top::Options { host, once, interval })
        }
        Some(Sub::Inspect { place, data_option }) => Action::Inspect(Place::of(place, data_option, true)?),
        Some(Sub::Test { paths, complete, quiet }) => {
            all.quiet |= quiet;
            let (paths, filter) = paths_and_filter(paths)?;
            Action::Test { paths, filter, complete }
        }
        None if !commands.is_empty() => Action::Commands(commands),
        None if terminal => Action::Shell,
        None => Action::Script(None),
    };
    if all.data.is_none() && !all.data_option.is_empty() {
        return Err(Stop::Usage("--data-option is given without --data".to_owned()));
    }
    // Not checked by clap, which sees only one side of the subcommand.
    if all.data.is_none() && all.must_exist {
        return Err(Stop::Usage("--must-exist is given without --data".to_owned()));
    }
    let data = all.data.map(|word| Place::of(word, all.data_option, all.must_exist));
    let data = data.transpose()?;
    if let Some(Place::Directory(directory)) = &data
        && all.must_exist
        && !directory.is_dir()
    {
        let message = format!("there is no directory '{}', and --must-exist makes none", directory.display());
        return Err(Stop::external(message));
    }
    if data.is_none() && all.skip_lost_records {
        return Err(Stop::Usage("--skip-lost-records is given without --data".to_owned()));
    }
    let without_lost = |place| Place::WithoutLostRecords(Box::new(place));
    let data = if all.skip_lost_records { data.map(without_lost) } else { data };
    // The last value of a name counts, and the option is the more explicit form.
    all.set.extend(all.memory_limit.map(|bytes| ("memory_limit".to_owned(), bytes)));
    let (quiet, no_color) = (all.quiet, all.no_color);
    Ok(Request { action, variables: all.set, quiet, no_color, data, ui: page, log_format })
}

impl Shared {
    fn add(&mut self, later: Shared) {
        self.set.extend(later.set);
        self.memory_limit = later.memory_limit.or(self.memory_limit.take());
        self.quiet |= later.quiet;
        self.no_color |= later.no_color;
        self.data = later.data.or(self.data.take());
        self.data_option.extend(later.data_option);
        self.must_exist |= later.must_exist;
        self.skip_lost_records |= later.skip_lost_records;
    }
}

/// Splits the paths from a filter: the last word, if no such file exists and it doesn't look like one.
fn paths_and_filter(mut paths: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Option<String>), Stop> {
    let is_filter =
        |path: &Path| !path.exists() && path.extension().is_none() && path.components().count() == 1;
    let filter = paths.pop_if(|path| is_filter(path)).map(|path| path.to_string_lossy().into_owned());
    if paths.is_empty()
        && let Some(missing) = &filter
    {
        return Err(Stop::external(format_args!("there is no file or directory '{missing}'")));
    }
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        return Err(Stop::external(format_args!("there is no file or directory '{}'", missing.display())));
    }
    Ok((paths, filter))
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has no '=': write name=value")?;
    if !variables::is_name(name) {
        return Err(format!("'{name}' can't name a variable: use letters, digits and _"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write a number of seconds from 0.1 to 3600".to_owned())
}

fn store_option(text: &str) -> Result<(String, String), String> {
    // The value may be a secret, so the message doesn't show it.
    let (name, value) = text.split_once('=').ok_or("it has no '=': write name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Adds a tip for users who give a script without `run`.
fn with_tip(error: clap::Error) -> clap::Error {
    use clap::CommandFactory;
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    if error.kind() != ErrorKind::InvalidSubcommand || !Path::new(word).exists() {
        return error;
    }
    let verb = if Path::new(word).is_dir() || word.ends_with(".slt") { "test" } else { "run" };
    let message = format!("to run '{word}', write: millstream {verb} {word}");
    Arguments::command().error(ErrorKind::InvalidSubcommand, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Request, Stop> {
        let arguments = Arguments::try_parse_from(["millstream"].iter().chain(words)).unwrap();
        request(arguments, true)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn each_kind_of_work_is_told_apart() {
        assert_eq!(parse(&[]).unwrap().action, Action::Shell);
        assert_eq!(
            parse(&["-c", "a", "-c", "b"]).unwrap().action,
            Action::Commands(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(parse(&["run", "-"]).unwrap().action, Action::Script(None));
        assert_eq!(parse(&["run", "a.sql"]).unwrap().action, Action::Script(Some("a.sql".into())));
        let arguments = Arguments::try_parse_from(["millstream"]).unwrap();
        assert_eq!(request(arguments, false).unwrap().action, Action::Script(None));
        assert!(matches!(parse(&["-c", "a", "run", "b"]), Err(Stop::Usage(_))));
    }

    #[test]
    fn a_server_has_a_web_page_and_a_script_only_if_asked() {
        let at = |address: &str| Ui::At(address.to_owned());
        for (words, ui) in [
            (&["server"][..], Ui::Usual),
            (&["server", "--ui", "none"], Ui::Off),
            (&["server", "--ui", "127.0.0.1:0", "a.sql"], at("127.0.0.1:0")),
            (&["run", "a.sql"], Ui::Off),
            (&["run", "--ui", "localhost:1", "a.sql"], at("localhost:1")),
            (&["-c", "SELECT 1"], Ui::Off),
            (&[], Ui::Off),
        ] {
            assert_eq!(parse(words).unwrap().ui, ui, "{words:?}");
        }
    }

    #[test]
    fn top_has_an_address_and_an_interval() {
        let options = |host: &str, once, ms| {
            Action::Top(top::Options { host: host.into(), once, interval: Duration::from_millis(ms) })
        };
        assert_eq!(parse(&["top"]).unwrap().action, options("127.0.0.1:4777", false, 1000));
        let other = parse(&["top", "--once", "--host", "h:1", "--interval", "0.5", "--no-color"]).unwrap();
        assert_eq!((other.action, other.no_color), (options("h:1", true, 500), true));
        for wrong in ["0", "-1", "NaN", "inf", "4000", "x"] {
            assert!(
                Arguments::try_parse_from(["millstream", "top", "--interval", wrong]).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_format_of_the_log_may_stand_anywhere() {
        for words in [
            &["--log-format", "json", "server"][..],
            &["server", "--log-format", "json"],
            &["inspect", "d", "--log-format=json"],
            &["-c", "SELECT 1", "--log-format", "json"],
        ] {
            assert_eq!(parse(words).unwrap().log_format, Some(LogFormat::Json), "{words:?}");
        }
        assert_eq!(parse(&["top"]).unwrap().log_format, None);
        assert!(Arguments::try_parse_from(["millstream", "--log-format", "xml"]).is_err());
    }

    #[test]
    fn variables_may_stand_before_and_after() {
        let request =
            parse(&["--set", "a=1", "run", "x.sql", "-q", "--set", "b=x=y", "--set", "c="]).unwrap();
        assert_eq!(request.variables, [pair("a", "1"), pair("b", "x=y"), pair("c", "")]);
        assert!(request.quiet);
        for wrong in ["a", "1a=2", "=x", "a-b=c"] {
            assert!(Arguments::try_parse_from(["millstream", "--set", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_memory_limit_is_a_variable_that_comes_last() {
        for words in [
            &["--memory-limit", "2GB", "run", "x.sql", "--set", "memory_limit=1GB"][..],
            &["--memory-limit", "1GB", "--set", "memory_limit=1GB", "run", "x.sql", "--memory-limit", "2GB"],
        ] {
            let limits = [pair("memory_limit", "1GB"), pair("memory_limit", "2GB")];
            assert_eq!(parse(words).unwrap().variables, limits);
        }
    }

    #[test]
    fn a_data_directory_may_stand_before_and_after() {
        for words in [["--data", "d", "run", "x.sql"], ["run", "x.sql", "--data", "d"]] {
            assert_eq!(parse(&words).unwrap().data, Some(Place::Directory("d".into())));
        }
        assert_eq!(parse(&["--data", "file:///d"]).unwrap().data, Some(Place::Directory("/d".into())));
        assert!(matches!(parse(&["--data", "nowhere", "--must-exist"]), Err(Stop::External(_))));
        let skipping = parse(&["run", "x.sql", "--skip-lost-records", "--data", "d"]).unwrap().data.unwrap();
        assert_eq!(skipping, Place::WithoutLostRecords(Box::new(Place::Directory("d".into()))));
        assert_eq!(skipping.directory(), Some(Path::new("d")));
        assert!(matches!(parse(&["--skip-lost-records", "run", "x.sql"]), Err(Stop::Usage(_))));
        for words in [
            ["--data", "src", "run", "x.sql", "--must-exist"],
            ["--must-exist", "run", "x.sql", "--data", "src"],
        ] {
            assert_eq!(parse(&words).unwrap().data, Some(Place::Directory("src".into())));
        }
        assert!(matches!(parse(&["--must-exist"]), Err(Stop::Usage(_))));
    }

    #[test]
    fn a_prefix_of_an_object_store_has_options() {
        let words =
            ["--data", "s3://b/p", "--data-option", "region=x", "run", "x.sql", "--data-option", "a=b=c"];
        let options = vec![pair("region", "x"), pair("a", "b=c")];
        assert_eq!(
            parse(&words).unwrap().data,
            Some(Place::Store { url: "s3://b/p".into(), options, must_exist: false })
        );
        let plain = parse(&["--data", "./s3:/b"]).unwrap().data;
        assert_eq!(plain, Some(Place::Directory("./s3:/b".into())));
        let inspected = parse(&["inspect", "s3://b/p"]).unwrap().action;
        let there = Place::Store { url: "s3://b/p".into(), options: Vec::new(), must_exist: true };
        assert_eq!(inspected, Action::Inspect(there));
        for wrong in [
            &["--data", "gs://b/p"][..],
            &["--data", "s3:/b/p"],
            &["inspect", "s3:/b"],
            &["--data", "d", "--data-option", "a=b"],
            &["--data-option", "a=b"],
        ] {
            assert!(matches!(parse(wrong), Err(Stop::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_filter_is_the_last_word_that_is_no_file() {
        let filter = |words: &[&str]| paths_and_filter(words.iter().map(PathBuf::from).collect());
        assert_eq!(filter(&["src"]).unwrap(), (vec!["src".into()], None));
        assert_eq!(filter(&["src", "join"]).unwrap(), (vec!["src".into()], Some("join".to_owned())));
        for missing in [&["nowhere"][..], &["src", "no/where"], &["src", "nowhere.slt"], &["nowhere", "src"]]
        {
            assert!(matches!(filter(missing), Err(Stop::External(_))), "{missing:?}");
        }
    }
}
