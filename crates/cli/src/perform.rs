//! Implements the shell's commands.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::describe;
use crate::form::{MODES, Mode};
use crate::interpreter::{Call, Interpreter, Next, Otherwise, failure};
use crate::logging::{self, Message};
use crate::meta;
use crate::output::Blocks;
use crate::program;
use crate::script::{self, Source};
use crate::stop::Stop;
use crate::target::Target;
use crate::variables;

/// Default pause of `\watch` between two runs.
const WATCH_PAUSE: Duration = Duration::from_secs(2);

/// Runs the command `name`.
pub(crate) async fn perform(shell: &mut Interpreter, name: &str, call: Call<'_>) -> Result<Next, Stop> {
    match name {
        "?" => shell.client.output.text(meta::help() + "\n").await?,
        "h" => {
            let text = meta::syntax(&call.words).map_err(failure)?;
            shell.client.output.text(text).await?;
        }
        "q" => return Ok(Next::Leave),
        "conninfo" => conninfo(shell).await?,
        "set" => set(shell, &call).await?,
        "unset" => unset(shell, &call)?,
        "echo" => shell.client.output.say(&call.words.join(" ")).await?,
        "qecho" => shell.client.output.line(&call.words.join(" ")).await?,
        "warn" => logging::tell(Message::Line(&call.words.join(" "))),
        "!" => system(shell, &call)?,
        "e" => return edit(shell, &call).await,
        "g" | "gx" => go(shell, name == "gx", &call).await?,
        "i" => shell.include(PathBuf::from(call.need("a file")?)).await?,
        "ir" => shell.include(beside(call.beside, call.need("a file")?)).await?,
        "p" => buffer(shell).await?,
        "r" => reset(shell).await?,
        "s" => history(shell, &call).await?,
        "live" => crate::live::perform(shell, &call).await?,
        "watch" => watch(shell, &call).await?,
        "mode" => mode(shell, &call).await?,
        "o" => redirect(shell, &call).await?,
        "pager" => pager(shell, &call).await?,
        "timing" => timing(shell, &call).await?,
        "x" => blocks(shell, &call).await?,
        _ => describe::perform(&mut shell.client, name, &call).await?,
    }
    Ok(Next::GoOn)
}

async fn conninfo(shell: &Interpreter) -> Result<(), Stop> {
    let client = &shell.client;
    let progress = client.engine.progress();
    let epochs = match progress.epochs {
        0 => "no epoch has run yet".to_owned(),
        1 => "1 epoch has run".to_owned(),
        epochs => format!("{} have run", crate::progress::counted(epochs, "epoch")),
    };
    let sources = crate::progress::counted(progress.sources_open as u64, "source");
    let line = format!(
        "Millstream {}, an engine in this process, in memory: {epochs}, {sources} being read, {} read so far.",
        env!("CARGO_PKG_VERSION"),
        crate::progress::counted(progress.rows, "row"),
    );
    client.output.say(&line).await?;
    Ok(())
}

async fn set(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let Some(name) = call.word() else {
        for (name, value) in shell.client.variables.all() {
            shell.client.output.say(&format!("{name} = '{}'", value.replace('\'', "''"))).await?;
        }
        return Ok(());
    };
    if !variables::is_name(name) {
        return Err(failure(format!("'{name}' can't name a variable: use letters, digits and _")));
    }
    shell.client.variables.set(name, call.words[1..].concat());
    Ok(())
}

fn unset(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let name = call.need("a variable's name")?;
    if shell.client.variables.unset(name) {
        return Ok(());
    }
    Err(failure(format!("variable '{name}' is not set; \\set lists those that are")))
}

fn system(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let mut command = match call.rest {
        "" => Command::new(std::env::var_os("SHELL").unwrap_or_else(|| "sh".into())),
        command => program::by_shell(command),
    };
    let status = command
        .status()
        .map_err(|error| Stop::external(format_args!("the command can't be started: {error}")))?;
    // A Ctrl-C was meant for the command, not for the shell.
    shell.client.forget_signals();
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(failure(format!("the command ended with code {code}"))),
        None => Err(failure("the command was ended by a signal")),
    }
}

/// Opens an editor for a statement or a file, then runs the result.
async fn edit(shell: &mut Interpreter, call: &Call<'_>) -> Result<Next, Stop> {
    if !std::io::stdin().is_terminal() {
        return Err(failure("an editor needs a terminal: \\i FILE runs a file as it is"));
    }
    let editor = program::editor().ok_or_else(|| {
        failure("there is no editor: set VISUAL or EDITOR to one, as in EDITOR=nano millstream")
    })?;
    let (path, before, temporary) = match call.word() {
        Some(file) => (PathBuf::from(file), std::fs::read(file).unwrap_or_default(), false),
        None => {
            let text = shell.statement().map_or_else(|_| String::new(), |text| format!("{text};\n"));
            let path = std::env::temp_dir().join(format!("millstream-{}.sql", std::process::id()));
            std::fs::write(&path, &text).map_err(|error| {
                Stop::external(format_args!("'{}' can't be written: {error}", path.display()))
            })?;
            (path, text.into_bytes(), true)
        }
    };
    let status = editor_command(&editor, &path).status();
    shell.client.forget_signals();
    let saved = script::read_if_there(&path);
    if temporary {
        // If this fails, a temporary file stays behind.
        let _ = std::fs::remove_file(&path);
    }
    match status {
        Ok(status) if status.success() => {}
        Ok(_) => return Err(failure(format!("the editor ({editor}) failed: nothing was run"))),
        Err(error) => {
            return Err(Stop::external(format_args!("the editor ({editor}) can't be started: {error}")));
        }
    }
    let Some(script) = saved? else {
        return Err(failure(format!("'{}' was not saved: nothing was run", path.display())));
    };
    if script.sql().as_bytes() == before {
        shell.client.output.remark("Nothing was changed: nothing was run.").await?;
        return Ok(Next::GoOn);
    }
    shell.buffer = Default::default();
    let name = (!temporary).then(|| script.name().to_owned());
    shell.edited.push(script.sql().trim().to_owned());
    let source = Source {
        name: name.as_deref(),
        path: call.word().map(Path::new),
        text: script.sql(),
        gather: false,
        whole: true,
    };
    Box::pin(shell.run(source)).await
}

/// The editor's name may be followed by options, which the system's shell splits.
fn editor_command(editor: &str, path: &Path) -> Command {
    if cfg!(windows) {
        let mut command = Command::new(editor);
        command.arg(path);
        return command;
    }
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path);
    command
}

async fn go(shell: &mut Interpreter, blocks: bool, call: &Call<'_>) -> Result<(), Stop> {
    let target = match call.rest {
        "" => None,
        rest if rest.starts_with('|') => Some(open(rest)?),
        _ => Some(open(call.need("a file")?)?),
    };
    shell.run_again(Otherwise { blocks, target }).await
}

fn open(name: &str) -> Result<Target, Stop> {
    Target::open(name).map_err(|error| Stop::external(format_args!("'{name}' can't be written: {error}")))
}

/// Resolves a path relative to the file that contains it.
fn beside(file: Option<&Path>, path: &str) -> PathBuf {
    file.and_then(Path::parent).map_or_else(|| PathBuf::from(path), |directory| directory.join(path))
}

async fn buffer(shell: &Interpreter) -> Result<(), Stop> {
    let text = shell.statement()?;
    shell.client.output.say(&text).await?;
    Ok(())
}

async fn reset(shell: &mut Interpreter) -> Result<(), Stop> {
    shell.buffer = Default::default();
    shell.client.output.remark("The statement that was being typed is dropped.").await?;
    Ok(())
}

async fn history(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let Some(typed) = &shell.typed else {
        return Err(failure("there is no history: the shell is not interactive"));
    };
    let text: String = typed.iter().map(|entry| format!("{entry}\n")).collect();
    let Some(file) = call.word() else {
        shell.client.output.text(text).await?;
        return Ok(());
    };
    std::fs::write(file, text)
        .map_err(|error| Stop::external(format_args!("'{file}' can't be written: {error}")))?;
    shell.client.output.remark(&format!("Written to '{file}'.")).await?;
    Ok(())
}

async fn watch(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let (mut pause, mut times) = (WATCH_PAUSE, None);
    for word in &call.words {
        if let Some(count) = word.strip_prefix("c=").or(word.strip_prefix("count=")) {
            let count = count.parse().ok().filter(|count| *count > 0);
            times = Some(count.ok_or_else(|| failure(format!("\\watch: '{word}' is no number of times")))?);
            continue;
        }
        let seconds = word.strip_prefix("i=").or(word.strip_prefix("interval=")).unwrap_or(word);
        let seconds = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        pause = seconds.ok_or_else(|| failure(format!("\\watch: '{word}' is no number of seconds")))?;
    }
    shell.watch(pause, times).await
}

async fn mode(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let output = &mut shell.client.output;
    let names = || MODES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if let Some(name) = call.word() {
        let mode = Mode::find(name);
        output.choices.mode =
            mode.ok_or_else(|| failure(format!("there is no mode '{name}': the modes are {}", names())))?;
        return Ok(());
    }
    let line = format!("Rows are shown as {} (the modes are {}).", output.choices.mode.name(), names());
    output.say(&line).await?;
    Ok(())
}

async fn redirect(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let target = match call.rest {
        "" => Target::Standard,
        rest if rest.starts_with('|') => open(rest)?,
        _ => open(call.need("a file")?)?,
    };
    shell.client.output.set_target(target).finish().await;
    Ok(())
}

/// Parses an on/off argument; without one, returns the opposite of `now`.
fn switched(now: bool, call: &Call<'_>) -> Result<bool, Stop> {
    match call.word().map(str::to_ascii_lowercase).as_deref() {
        None => Ok(!now),
        Some("on" | "true" | "yes" | "1") => Ok(true),
        Some("off" | "false" | "no" | "0") => Ok(false),
        Some(other) => Err(failure(format!("\\{} takes on or off, not '{other}'", call.name))),
    }
}

async fn pager(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let choices = &mut shell.client.output.choices;
    choices.pager = switched(choices.pager, call)?;
    let line = match (choices.pager, program::pager()) {
        (true, Some(command)) => format!("Output that is too long for the screen goes to {command}."),
        (true, None) => "There is no pager: PAGER is empty, or less is not installed.".to_owned(),
        (false, _) => "No pager is used.".to_owned(),
    };
    shell.client.output.remark(&line).await?;
    Ok(())
}

async fn timing(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let choices = &mut shell.client.output.choices;
    choices.timing = switched(choices.timing, call)?;
    let line = if choices.timing { "Timing is on." } else { "Timing is off." };
    shell.client.output.remark(line).await?;
    Ok(())
}

async fn blocks(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let choices = &mut shell.client.output.choices;
    choices.blocks = match call.word() {
        Some(word) if word.eq_ignore_ascii_case("auto") => Blocks::Auto,
        Some(other) if !["on", "off"].iter().any(|word| other.eq_ignore_ascii_case(word)) => {
            return Err(failure(format!("\\x takes on, off or auto, not '{other}'")));
        }
        _ if switched(choices.blocks != Blocks::Off, call)? => Blocks::On,
        _ => Blocks::Off,
    };
    let line = match choices.blocks {
        Blocks::Off => "Rows are shown as tables.",
        Blocks::On => "Rows are shown as blocks of lines.",
        Blocks::Auto => "Rows too wide for the screen are shown as blocks of lines.",
    };
    shell.client.output.remark(line).await?;
    Ok(())
}
