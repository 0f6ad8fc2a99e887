//! The grammar of tokens: for each state of the lexer the steps that it may take, in the order in which it tries them.
//!
//! A [`Step`] leads to another state, with or without the way back, or ends a token. The lexer is in `lexer.rs`.

use super::token::Kind;

/// A condition on the next character.
#[derive(Debug, Clone, Copy)]
pub(super) enum On {
    /// The end of the text.
    End,
    /// One of these.
    Is(&'static str),
    /// An ASCII letter.
    Letter,
    /// A letter.
    Alpha,
    Digit,
    Hex,
    Alnum,
    /// A mark on a letter.
    Mark,
    Space,
    /// A character of the path of a URL.
    Url,
    /// Any character within a script or a style sheet.
    Code,
    /// A host is read as a part of another token.
    HostOnly,
    /// A host begins here.
    Host,
    /// The path of a URL begins here.
    Path,
    Any,
}

/// A step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Reads the character.
    To(State),
    /// Reads the character. If the token fails later, the lexer continues with the next step of this state.
    Try(State),
    /// Reads the character, and gives up the last way back.
    Sure(State),
    /// Reads the character; the tag's name or the tag is complete.
    Named(State),
    /// Changes the state only.
    Again(State),
    /// Ends the token before the character.
    Emit(Kind),
    /// Ends the token, and continues in a state.
    Then(Kind, State),
    /// Ends a compound: its parts are the next tokens.
    Parts(Kind),
    /// Ends a URL: its host and its path are the next tokens.
    Url,
    /// Ends a sign: a version number follows.
    Sign,
    /// Returns to the last way back.
    Fail,
}

/// A state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rustfmt::skip]
pub(super) enum State {
    Base, Blank,
    AsciiWord, Word, NumWord,
    Uint, UFloatFirst, UFloat, Signed, Int, FloatFirst, Float, SignedVersion,
    VersionFirst, Version, ExponentFirst, ExponentSign, Exponent,
    EntityFirst, Entity, EntityNumberFirst, EntityNumber, EntityHexFirst, EntityHex, EntityEnd,
    TagFirst, XmlFirst, CloseFirst, TagName, EmptyEnd, Tag, Quoted, QuotedEscape, DoubleQuoted,
    DoubleQuotedEscape, TagEnd, CommentFirst, CommentSecond, Comment, CommentDash, CommentDashes, CommentEnd,
    DomainFirst, DomainSecond, Domain, PortFirst, Port, HostFirst, Host, Email, UrlPath, UrlPathStart, UrlEnd,
    UrlPathFirst, FileFirst, FileHome, PathFirst, PathDot, PathDots, File, FileNext,
    ProtocolFirst, ProtocolSecond, ProtocolEnd,
    AsciiCompoundFirst, AsciiCompound, CompoundFirst, Compound, NumCompoundFirst, NumCompound, CompoundDigits,
    Parts, PartsHyphen, AsciiPart, Part, NumPart, PartDigits,
}

/// Returns the steps of a state.
pub(super) fn steps(state: State) -> &'static [(On, Step)] {
    words(state)
        .or_else(|| numbers(state))
        .or_else(|| markup(state))
        .or_else(|| comments(state))
        .or_else(|| hosts(state))
        .or_else(|| files(state))
        .or_else(|| compounds(state))
        .or_else(|| parts(state))
        .unwrap_or(&[])
}

use On::{Alnum, Alpha, Any, Code, Digit, End, Hex, HostOnly, Is, Letter, Mark, Space};
use State as S;
use Step::{Again, Emit, Fail, Named, Sure, Then, To, Try};

type Steps = Option<&'static [(On, Step)]>;

fn words(state: State) -> Steps {
    Some(match state {
        S::Base => &[
            (Is("<"), Try(S::TagFirst)),
            (Code, To(S::Blank)),
            (Letter, Try(S::AsciiWord)),
            (Alpha, Try(S::Word)),
            (Digit, Try(S::Uint)),
            (Is("-+"), Try(S::Signed)),
            (Is("&"), Try(S::EntityFirst)),
            (Is("~"), Try(S::FileHome)),
            (Is("/"), Try(S::FileFirst)),
            (Is("."), Try(S::PathFirst)),
            (Any, To(S::Blank)),
        ],
        S::Blank => &[
            (End, Emit(Kind::Blank)),
            (Is("<"), Emit(Kind::Blank)),
            (Code, To(S::Blank)),
            (Is("-+&/"), Emit(Kind::Blank)),
            (Alnum, Emit(Kind::Blank)),
            (Any, To(S::Blank)),
        ],
        S::AsciiWord => &[
            (End, Emit(Kind::AsciiWord)),
            (Letter, To(S::AsciiWord)),
            (Is("."), Try(S::DomainFirst)),
            (Is("."), Try(S::FileNext)),
            (Is("-"), Try(S::HostFirst)),
            (Is("-"), Try(S::AsciiCompoundFirst)),
            (Is("_"), Try(S::HostFirst)),
            (Is("@"), Try(S::Email)),
            (Is(":"), Try(S::ProtocolFirst)),
            (Is("/"), Try(S::FileFirst)),
            (Digit, Try(S::Host)),
            (Digit, To(S::NumWord)),
            (Alpha, To(S::Word)),
            (Mark, To(S::Word)),
            (Any, Emit(Kind::AsciiWord)),
        ],
        S::Word => &[
            (End, Emit(Kind::Word)),
            (Alpha, To(S::Word)),
            (Mark, To(S::Word)),
            (Digit, To(S::NumWord)),
            (Is("-"), Try(S::CompoundFirst)),
            (Any, Emit(Kind::Word)),
        ],
        S::NumWord => &[
            (End, Emit(Kind::NumWord)),
            (Alnum, To(S::NumWord)),
            (Mark, To(S::NumWord)),
            (Is("@"), Try(S::Email)),
            (Is("/"), Try(S::FileFirst)),
            (Is("."), Try(S::FileNext)),
            (Is("-"), Try(S::NumCompoundFirst)),
            (Any, Emit(Kind::NumWord)),
        ],
        _ => return None,
    })
}

fn numbers(state: State) -> Steps {
    Some(match state {
        S::Uint => &[
            (End, Emit(Kind::Uint)),
            (Digit, To(S::Uint)),
            (Is("."), Try(S::DomainFirst)),
            (Is("."), Try(S::UFloatFirst)),
            (Is("eE"), Try(S::ExponentFirst)),
            (Is("-_"), Try(S::HostFirst)),
            (Is("@"), Try(S::Email)),
            (Letter, Try(S::Host)),
            (Alpha, To(S::NumWord)),
            (Mark, To(S::NumWord)),
            (Is("/"), Try(S::FileFirst)),
            (Any, Emit(Kind::Uint)),
        ],
        S::UFloatFirst => &[(Digit, Sure(S::UFloat)), (Any, Fail)],
        S::UFloat => &[
            (End, Emit(Kind::Float)),
            (Digit, To(S::UFloat)),
            (Is("."), Try(S::VersionFirst)),
            (Is("eE"), Try(S::ExponentFirst)),
            (Any, Emit(Kind::Float)),
        ],
        S::Signed => &[(Digit, Sure(S::Int)), (Any, Fail)],
        S::Int => &[
            (End, Emit(Kind::Int)),
            (Digit, To(S::Int)),
            (Is("."), Try(S::FloatFirst)),
            (Is("eE"), Try(S::ExponentFirst)),
            (Any, Emit(Kind::Int)),
        ],
        S::FloatFirst => &[(Digit, Sure(S::Float)), (Any, Fail)],
        S::Float => &[
            (End, Emit(Kind::Float)),
            (Digit, To(S::Float)),
            (Is("."), Try(S::SignedVersion)),
            (Is("eE"), Try(S::ExponentFirst)),
            (Any, Emit(Kind::Float)),
        ],
        S::SignedVersion => &[(Digit, Step::Sign), (Any, Fail)],
        S::VersionFirst => &[(Digit, Sure(S::Version)), (Any, Fail)],
        S::Version => &[
            (End, Emit(Kind::Version)),
            (Digit, To(S::Version)),
            (Is("."), Try(S::VersionFirst)),
            (Any, Emit(Kind::Version)),
        ],
        S::ExponentFirst => &[(Digit, Sure(S::Exponent)), (Is("+-"), To(S::ExponentSign)), (Any, Fail)],
        S::ExponentSign => &[(Digit, Sure(S::Exponent)), (Any, Fail)],
        S::Exponent => {
            &[(End, Emit(Kind::Scientific)), (Digit, To(S::Exponent)), (Any, Emit(Kind::Scientific))]
        }
        _ => return None,
    })
}

fn markup(state: State) -> Steps {
    Some(match state {
        S::EntityFirst => &[
            (Is("#"), To(S::EntityNumberFirst)),
            (Letter, To(S::Entity)),
            (Is(":_"), To(S::Entity)),
            (Any, Fail),
        ],
        S::Entity => {
            &[(Alnum, To(S::Entity)), (Is(":_.-"), To(S::Entity)), (Is(";"), To(S::EntityEnd)), (Any, Fail)]
        }
        S::EntityNumberFirst => {
            &[(Is("xX"), To(S::EntityHexFirst)), (Digit, To(S::EntityNumber)), (Any, Fail)]
        }
        S::EntityNumber => &[(Digit, To(S::EntityNumber)), (Is(";"), To(S::EntityEnd)), (Any, Fail)],
        S::EntityHexFirst => &[(Hex, To(S::EntityHex)), (Any, Fail)],
        S::EntityHex => &[(Hex, To(S::EntityHex)), (Is(";"), To(S::EntityEnd)), (Any, Fail)],
        S::EntityEnd => &[(Any, Emit(Kind::Entity))],
        S::TagFirst => &[
            (Is("/"), Try(S::CloseFirst)),
            (Is("!"), Try(S::CommentFirst)),
            (Is("?"), Try(S::XmlFirst)),
            (Letter, Try(S::TagName)),
            (Is(":_"), Try(S::TagName)),
            (Any, Fail),
        ],
        S::XmlFirst => &[(Is("xX"), To(S::Tag)), (Any, Fail)],
        S::CloseFirst => &[(Letter, To(S::TagName)), (Any, Fail)],
        S::TagName => &[
            (End, Fail),
            (Is("/"), To(S::EmptyEnd)),
            (Is(">"), Named(S::TagEnd)),
            (Space, Named(S::Tag)),
            (Alnum, To(S::TagName)),
            (Is(":_.-"), To(S::TagName)),
            (Any, Fail),
        ],
        S::EmptyEnd => &[(Is(">"), To(S::TagEnd)), (Any, Fail)],
        S::Tag => &[
            (Is(">"), Named(S::TagEnd)),
            (Is("'"), To(S::Quoted)),
            (Is("\""), To(S::DoubleQuoted)),
            (Letter, To(S::Tag)),
            (Digit, To(S::Tag)),
            (Is("=-_#/:.&?%~"), To(S::Tag)),
            (Space, To(S::Tag)),
            (Any, Fail),
        ],
        S::Quoted => {
            &[(End, Fail), (Is("\\"), To(S::QuotedEscape)), (Is("'"), To(S::Tag)), (Any, To(S::Quoted))]
        }
        S::QuotedEscape => &[(End, Fail), (Any, To(S::Quoted))],
        S::DoubleQuoted => &[
            (End, Fail),
            (Is("\\"), To(S::DoubleQuotedEscape)),
            (Is("\""), To(S::Tag)),
            (Any, To(S::DoubleQuoted)),
        ],
        S::DoubleQuotedEscape => &[(End, Fail), (Any, To(S::DoubleQuoted))],
        S::TagEnd => &[(Any, Emit(Kind::Tag))],
        _ => return None,
    })
}

fn comments(state: State) -> Steps {
    Some(match state {
        S::CommentFirst => &[(Is("-"), To(S::CommentSecond)), (Is("dD"), To(S::Tag)), (Any, Fail)],
        S::CommentSecond => &[(Is("-"), To(S::Comment)), (Any, Fail)],
        S::Comment => &[(End, Fail), (Is("-"), To(S::CommentDash)), (Any, To(S::Comment))],
        S::CommentDash => &[(End, Fail), (Is("-"), To(S::CommentDashes)), (Any, To(S::Comment))],
        S::CommentDashes => &[
            (End, Fail),
            (Is("-"), To(S::CommentDashes)),
            (Is(">"), To(S::CommentEnd)),
            (Any, To(S::Comment)),
        ],
        S::CommentEnd => &[(Any, Emit(Kind::Tag))],
        _ => return None,
    })
}

fn hosts(state: State) -> Steps {
    Some(match state {
        S::DomainFirst => &[(Letter, To(S::DomainSecond)), (Digit, To(S::Host)), (Any, Fail)],
        S::DomainSecond => &[
            (Letter, To(S::Domain)),
            (Digit, Try(S::Host)),
            (Is("-_"), Try(S::HostFirst)),
            (Is("."), Try(S::DomainFirst)),
            (Is("@"), Try(S::Email)),
            (Any, Fail),
        ],
        S::Domain => &[
            (End, Emit(Kind::Host)),
            (Letter, To(S::Domain)),
            (Digit, Try(S::Host)),
            (Is(":"), Try(S::PortFirst)),
            (Is("-_"), Try(S::HostFirst)),
            (Is("."), Try(S::DomainFirst)),
            (Is("@"), Try(S::Email)),
            (Digit, Fail),
            (HostOnly, Then(Kind::Host, S::UrlPathStart)),
            (Is("/"), Try(S::UrlEnd)),
            (Any, Emit(Kind::Host)),
        ],
        S::PortFirst => &[(Digit, To(S::Port)), (Any, Fail)],
        S::Port => &[
            (End, Emit(Kind::Host)),
            (Digit, To(S::Port)),
            (HostOnly, Then(Kind::Host, S::UrlPathStart)),
            (Is("/"), Try(S::UrlEnd)),
            (Any, Emit(Kind::Host)),
        ],
        S::HostFirst => &[(Digit, To(S::Host)), (Letter, To(S::Host)), (Any, Fail)],
        S::Host => &[
            (Digit, To(S::Host)),
            (Letter, To(S::Host)),
            (Is("@"), Try(S::Email)),
            (Is("."), Try(S::DomainFirst)),
            (Is("-_"), Try(S::HostFirst)),
            (Any, Fail),
        ],
        S::Email => &[(HostOnly, Fail), (On::Host, Emit(Kind::Email)), (Any, Fail)],
        S::UrlEnd => &[(On::Path, Step::Url), (Any, Fail)],
        S::UrlPathFirst => &[(On::Url, To(S::UrlPath)), (Any, Fail)],
        S::UrlPathStart => &[(Any, To(S::UrlPath))],
        S::UrlPath => &[(On::Url, To(S::UrlPath)), (Any, Emit(Kind::UrlPath))],
        _ => return None,
    })
}

fn files(state: State) -> Steps {
    Some(match state {
        S::FileFirst => &[
            (Letter, To(S::File)),
            (Digit, To(S::File)),
            (Is("."), To(S::PathDot)),
            (Is("_"), To(S::File)),
            (Is("~"), Try(S::FileHome)),
            (Any, Fail),
        ],
        S::FileHome => &[
            (Letter, To(S::File)),
            (Digit, To(S::File)),
            (Is("_"), To(S::File)),
            (Is("/"), To(S::FileFirst)),
            (Any, Fail),
        ],
        S::PathDot => &[
            (Letter, To(S::File)),
            (Digit, To(S::File)),
            (Is("_"), To(S::File)),
            (Is("."), To(S::PathDots)),
            (Is("/"), To(S::FileFirst)),
            (Any, Fail),
        ],
        S::PathFirst => &[(Is("."), To(S::PathDots)), (Is("/"), To(S::FileFirst)), (Any, Fail)],
        S::PathDots => &[
            (End, Emit(Kind::File)),
            (Is("/"), Try(S::FileFirst)),
            (Is("/"), Emit(Kind::File)),
            (Space, Emit(Kind::File)),
            (Any, Fail),
        ],
        S::File => &[
            (End, Emit(Kind::File)),
            (Letter, To(S::File)),
            (Digit, To(S::File)),
            (Is("."), Try(S::FileNext)),
            (Is("_-"), To(S::File)),
            (Is("/"), Try(S::FileFirst)),
            (Any, Emit(Kind::File)),
        ],
        S::FileNext => {
            &[(Letter, Sure(S::File)), (Digit, Sure(S::File)), (Is("_"), Sure(S::File)), (Any, Fail)]
        }
        S::ProtocolFirst => &[(Is("/"), To(S::ProtocolSecond)), (Any, Fail)],
        S::ProtocolSecond => &[(Is("/"), To(S::ProtocolEnd)), (Any, Fail)],
        S::ProtocolEnd => &[(Any, Emit(Kind::Protocol))],
        _ => return None,
    })
}

fn compounds(state: State) -> Steps {
    Some(match state {
        S::AsciiCompoundFirst => &[
            (Letter, To(S::AsciiCompound)),
            (Alpha, To(S::Compound)),
            (Digit, To(S::CompoundDigits)),
            (Any, Fail),
        ],
        S::AsciiCompound => &[
            (End, Step::Parts(Kind::AsciiHword)),
            (Letter, To(S::AsciiCompound)),
            (Alpha, To(S::Compound)),
            (Mark, To(S::Compound)),
            (Digit, To(S::NumCompound)),
            (Is("-"), Try(S::AsciiCompoundFirst)),
            (Any, Step::Parts(Kind::AsciiHword)),
        ],
        S::CompoundFirst => &[(Alpha, To(S::Compound)), (Digit, To(S::CompoundDigits)), (Any, Fail)],
        S::Compound => &[
            (End, Step::Parts(Kind::Hword)),
            (Alpha, To(S::Compound)),
            (Mark, To(S::Compound)),
            (Digit, To(S::NumCompound)),
            (Is("-"), Try(S::CompoundFirst)),
            (Any, Step::Parts(Kind::Hword)),
        ],
        S::NumCompoundFirst => &[(Alpha, To(S::NumCompound)), (Digit, To(S::CompoundDigits)), (Any, Fail)],
        S::NumCompound => &[
            (End, Step::Parts(Kind::NumHword)),
            (Alnum, To(S::NumCompound)),
            (Mark, To(S::NumCompound)),
            (Is("-"), Try(S::NumCompoundFirst)),
            (Any, Step::Parts(Kind::NumHword)),
        ],
        S::CompoundDigits => &[
            (Digit, To(S::CompoundDigits)),
            (Alpha, To(S::NumCompound)),
            (Mark, To(S::NumCompound)),
            (Any, Fail),
        ],
        _ => return None,
    })
}

fn parts(state: State) -> Steps {
    Some(match state {
        S::Parts => &[
            (End, Again(S::Base)),
            (Letter, To(S::AsciiPart)),
            (Alpha, To(S::Part)),
            (Digit, Try(S::PartDigits)),
            (Is("-"), Try(S::PartsHyphen)),
            (Any, Again(S::Base)),
        ],
        S::PartsHyphen => {
            &[(Alnum, Then(Kind::Blank, S::Parts)), (Mark, Then(Kind::Blank, S::Parts)), (Any, Fail)]
        }
        S::Part => &[
            (Alpha, To(S::Part)),
            (Mark, To(S::Part)),
            (Digit, To(S::NumPart)),
            (Any, Then(Kind::HwordPart, S::Parts)),
        ],
        S::AsciiPart => &[
            (Letter, To(S::AsciiPart)),
            (Alpha, To(S::Part)),
            (Mark, To(S::Part)),
            (Digit, To(S::NumPart)),
            (Any, Then(Kind::HwordAsciiPart, S::Parts)),
        ],
        S::NumPart => {
            &[(Alnum, To(S::NumPart)), (Mark, To(S::NumPart)), (Any, Then(Kind::HwordNumPart, S::Parts))]
        }
        S::PartDigits => {
            &[(Digit, To(S::PartDigits)), (Alpha, Sure(S::NumPart)), (Mark, Sure(S::NumPart)), (Any, Fail)]
        }
        _ => return None,
    })
}
