//! External programs started by the shell: a pager, an editor, or any command.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

use tokio::sync::{mpsc, oneshot};

/// Maximum number of texts that wait for the program.
const WAITING_MAX: usize = 4;

/// A program that reads the shell's output. A slow program blocks the writer, since only a few texts wait
/// for it.
#[derive(Debug)]
pub struct Program {
    sender: mpsc::Sender<Vec<u8>>,
    ended: oneshot::Receiver<()>,
}

impl Program {
    /// Starts a command line.
    pub fn start(command: &str) -> io::Result<Program> {
        let mut program = by_shell(command);
        if std::env::var_os("LESS").is_none() {
            // F: exit if all fits; R: keep colours; S: cut lines; X: leave the text on the screen.
            program.env("LESS", "FRSX");
        }
        let child = program.stdin(Stdio::piped()).spawn()?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("millstream-pager".into()).spawn(move || {
            feed(child, receiver);
            let _ = end.send(());
        })?;
        Ok(Program { sender, ended })
    }

    /// Sends more text; returns false if the program no longer reads.
    pub async fn write(&self, text: Vec<u8>) -> bool {
        self.sender.send(text).await.is_ok()
    }

    /// Closes the program's input, and waits until the program has ended.
    pub async fn finish(self) {
        drop(self.sender);
        let _ = self.ended.await;
    }
}

fn feed(mut child: Child, mut receiver: mpsc::Receiver<Vec<u8>>) {
    if let Some(mut input) = child.stdin.take() {
        while let Some(text) = receiver.blocking_recv() {
            if input.write_all(&text).and_then(|()| input.flush()).is_err() {
                break;
            }
        }
    }
    drop(receiver);
    // The exit code of a pager doesn't matter.
    let _ = child.wait();
}

/// Returns a command that the user's shell parses.
pub fn by_shell(command: &str) -> Command {
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut program = Command::new(shell);
    program.arg(option).arg(command);
    program
}

/// Returns the pager for long results: `$PAGER`, or `less` if it exists; `None` if `$PAGER` is empty.
pub fn pager() -> Option<String> {
    match std::env::var("PAGER") {
        Ok(pager) if pager.trim().is_empty() => None,
        Ok(pager) => Some(pager),
        Err(_) => is_there("less").then(|| "less -FRSX".to_owned()),
    }
}

/// Returns the editor: `$VISUAL`, `$EDITOR`, or the first that exists.
pub fn editor() -> Option<String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let usual = ["vi", "vim", "nano", "notepad"];
    set("VISUAL")
        .or_else(|| set("EDITOR"))
        .or_else(|| usual.iter().find(|name| is_there(name)).map(|name| (*name).to_owned()))
}

fn is_there(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|directory| {
        directory.join(program).is_file() || directory.join(format!("{program}.exe")).is_file()
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("nothing is asked of it").block_on(work)
    }

    #[test]
    fn a_program_gets_all_that_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        block_on(async {
            let program = Program::start(&format!("cat > '{}'", path.display())).unwrap();
            assert!(program.write(b"a\n".to_vec()).await);
            assert!(program.write(b"b\n".to_vec()).await);
            program.finish().await;
        });
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a\nb\n");
    }

    #[test]
    fn a_program_that_leaves_early_is_no_failure() {
        block_on(async {
            let program = Program::start("true").unwrap();
            while program.write(vec![b'x'; 100_000]).await {}
            program.finish().await;
        });
    }
}
