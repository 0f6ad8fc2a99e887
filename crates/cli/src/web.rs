//! The web page of `millstream server` and `millstream run --ui`.

use millstream_web::{ListenError, Page};

use crate::editor::complete_sql;
use crate::stop::Stop;

/// Default address of the page of a server.
pub const ADDRESS: &str = "127.0.0.1:4778";

/// The web page that the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ui {
    /// None.
    #[default]
    Off,
    /// The page at the default address, unless its port is taken.
    Usual,
    /// The page at this address.
    At(String),
}

/// A page that is being served, or the reason why the usual one is not.
#[derive(Debug)]
pub enum Web {
    /// The page.
    Served(Page),
    /// The reason why there is none.
    Absent(String),
}

impl Ui {
    /// Returns the page that `--ui` asks for; without the option, `otherwise`.
    pub fn of(word: Option<String>, otherwise: Ui) -> Ui {
        match word {
            None => otherwise,
            Some(word) if word.eq_ignore_ascii_case("none") => Ui::Off,
            Some(address) => Ui::At(address),
        }
    }

    /// Starts to serve the page, before the engine starts.
    pub async fn serve(&self) -> Result<Option<Web>, Stop> {
        let (address, is_usual) = match self {
            Ui::Off => return Ok(None),
            Ui::Usual => (ADDRESS, true),
            Ui::At(address) => (address.as_str(), false),
        };
        match Page::bind(address).await {
            Ok(page) => {
                page.complete_with(complete_sql);
                Ok(Some(Web::Served(page)))
            }
            Err(error) if is_usual => Ok(Some(Web::Absent(format!(
                "there is no web page: {error}; --ui HOST:PORT serves it elsewhere, --ui none does without"
            )))),
            Err(error @ (ListenError::Address { .. } | ListenError::Open(_))) => {
                Err(Stop::Usage(format!("--ui: {error}")))
            }
            Err(error) => Err(Stop::external(format_args!("--ui: {error}"))),
        }
    }
}

impl Web {
    /// Returns the message for the user: where the page is.
    pub fn message(&self) -> String {
        match self {
            Web::Served(page) => format!("the web page is at http://{}/", page.address()),
            Web::Absent(reason) => reason.clone(),
        }
    }

    /// Returns the page, if it is served.
    pub fn page(&self) -> Option<&Page> {
        match self {
            Web::Served(page) => Some(page),
            Web::Absent(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(ui: &Ui) -> Result<Option<Web>, Stop> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ui.serve())
    }

    #[test]
    fn the_option_names_an_address_or_none() {
        assert_eq!(Ui::of(None, Ui::Usual), Ui::Usual);
        assert_eq!(Ui::of(Some("None".into()), Ui::Usual), Ui::Off);
        assert_eq!(Ui::of(Some("[::1]:1".into()), Ui::Off), Ui::At("[::1]:1".into()));
        assert!(serve(&Ui::Off).unwrap().is_none());
    }

    #[test]
    fn an_address_that_was_given_must_be_free_and_of_this_machine() {
        let web = serve(&Ui::At("127.0.0.1:0".into())).unwrap().unwrap();
        let address = web.page().unwrap().address();
        assert_eq!(web.message(), format!("the web page is at http://{address}/"));
        let Err(Stop::External(taken)) = serve(&Ui::At(address.to_string())) else { panic!("it is taken") };
        assert!(taken.contains("is taken"), "{taken}");
        for wrong in ["0.0.0.0:0", "nowhere", "127.0.0.1"] {
            assert!(matches!(serve(&Ui::At(wrong.into())), Err(Stop::Usage(_))), "{wrong}");
        }
    }
}
