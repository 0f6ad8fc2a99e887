//! The full-screen view: the terminal, the keys, and the news of the feed.

use std::io::{self, Stdout};
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio::sync::{mpsc, watch};

use crate::stop::Stop;
use crate::top::address::Address;
use crate::top::details::Details;
use crate::top::draw::{Scene, draw};
use crate::top::feed::{self, Update, Wish};
use crate::top::figures::Figures;
use crate::top::reading::Reading;
use crate::top::server::Server;
use crate::top::view::View;

/// Interval of the checks for the end of the view, by the thread that reads keys.
const LOOK: Duration = Duration::from_millis(200);

/// The number of updates that may wait for the view.
const UPDATES_MAX: usize = 4;

/// The terminal in full-screen mode. Dropping this restores it in any case.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn open() -> io::Result<Screen> {
        enable_raw_mode()?;
        let opened = execute!(io::stdout(), EnterAlternateScreen);
        let opened = opened.and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        opened.map(Screen).inspect_err(|_| drop(disable_raw_mode()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone can't be restored.
        let _ = self.0.show_cursor();
        let _ = execute!(io::stdout(), LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// The content of the view.
#[derive(Debug, Default)]
pub struct Content {
    /// The user's choices.
    pub view: View,
    /// The figures, sorted.
    pub figures: Figures,
    /// The details of the opened object, and those before.
    pub details: (Option<Details>, Option<Details>),
    /// The reason why the server can't be read now.
    pub lost: Option<String>,
    newest: Option<Reading>,
}

impl Content {
    /// Takes in news.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Read(reading) => {
                self.lost = None;
                self.figures = Figures::between(self.newest.as_ref(), &reading);
                self.view.sort.apply(&mut self.figures);
                self.newest = Some(*reading);
            }
            // The user may have opened another object meanwhile.
            Update::Details(details) if self.view.opened.as_ref() != Some(&details.object) => {}
            Update::Details(details) => {
                let before = self.details.0.replace(details);
                let opened = self.view.opened.as_ref();
                self.details.1 = before.filter(|before| Some(&before.object) == opened);
            }
            Update::Lost(reason) => {
                // The figures of a server that was started again have another origin.
                self.newest = None;
                self.details.1 = None;
                self.lost = Some(reason);
            }
        }
    }

    /// Handles an event of the terminal. Returns true if the user leaves.
    fn react(&mut self, event: &Event, page: usize) -> bool {
        let Event::Key(key) = event else { return false };
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let leaves = self.view.press(*key, &self.figures, page);
        self.view.sort.apply(&mut self.figures);
        if self.view.opened.is_none() {
            self.details = (None, None);
        }
        leaves
    }
}

/// Shows a server until the user leaves.
pub async fn show(address: Address, server: Server, interval: Duration, color: bool) -> Result<(), Stop> {
    let unusable = |error: io::Error| Stop::external(format_args!("the terminal can't be used: {error}"));
    let mut ended = Ended::new().map_err(unusable)?;
    let (wish, wishes) = watch::channel(Wish::default());
    let (sender, mut updates) = mpsc::channel(UPDATES_MAX);
    let shown = address.to_string();
    tokio::spawn(feed::run(address, server, interval, wishes, sender));
    let mut screen = Screen::open().map_err(unusable)?;
    let mut events = events();
    let mut content = Content::default();
    loop {
        let scene = Scene { address: &shown, content: &content, color };
        screen.0.draw(|frame| draw(frame, &scene)).map_err(unusable)?;
        let page = screen.0.size().map_err(unusable)?.height.saturating_sub(8).max(1).into();
        tokio::select! {
            Some(update) = updates.recv() => content.update(update),
            event = events.recv() => {
                // All keys that wait are handled before the next frame; so are the steps of a resize.
                let mut next = event;
                while let Some(event) = next {
                    if content.react(&event.map_err(unusable)?, page) {
                        return Ok(());
                    }
                    next = events.try_recv().ok();
                }
            }
            () = ended.reached() => return Ok(()),
        }
        let wanted = Wish { opened: content.view.opened.clone(), is_paused: content.view.is_paused };
        wish.send_if_modified(|wish| std::mem::replace(wish, wanted.clone()) != wanted);
    }
}

/// Returns the events of the terminal, which a thread reads.
fn events() -> mpsc::UnboundedReceiver<io::Result<Event>> {
    let (sender, events) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let event = match event::poll(LOOK) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let failed = event.is_err();
            if sender.send(event).is_err() || failed {
                return;
            }
        }
    });
    events
}

/// The signals that end the view.
#[cfg(unix)]
struct Ended([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Ended {
    fn new() -> io::Result<Ended> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Ended([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn reached(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The signals that end the view.
#[cfg(windows)]
struct Ended(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Ended {
    fn new() -> io::Result<Ended> {
        tokio::signal::windows::ctrl_c().map(Ended)
    }

    async fn reached(&mut self) {
        let _ = self.0.recv().await;
    }
}
