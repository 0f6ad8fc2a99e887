//! The types of tokens.

/// A type of tokens. The numbers, aliases and descriptions are those of PostgreSQL's default parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    AsciiWord = 1,
    Word,
    NumWord,
    Email,
    Url,
    Host,
    Scientific,
    Version,
    HwordNumPart,
    HwordPart,
    HwordAsciiPart,
    Blank,
    Tag,
    Protocol,
    NumHword,
    AsciiHword,
    Hword,
    UrlPath,
    File,
    Float,
    Int,
    Uint,
    Entity,
}

/// All types with their aliases and descriptions, in the order of their numbers.
pub(super) const KINDS: [(Kind, &str, &str); 23] = [
    (Kind::AsciiWord, "asciiword", "Word, all ASCII"),
    (Kind::Word, "word", "Word, all letters"),
    (Kind::NumWord, "numword", "Word, letters and digits"),
    (Kind::Email, "email", "Email address"),
    (Kind::Url, "url", "URL"),
    (Kind::Host, "host", "Host"),
    (Kind::Scientific, "sfloat", "Scientific notation"),
    (Kind::Version, "version", "Version number"),
    (Kind::HwordNumPart, "hword_numpart", "Hyphenated word part, letters and digits"),
    (Kind::HwordPart, "hword_part", "Hyphenated word part, all letters"),
    (Kind::HwordAsciiPart, "hword_asciipart", "Hyphenated word part, all ASCII"),
    (Kind::Blank, "blank", "Space symbols"),
    (Kind::Tag, "tag", "XML tag"),
    (Kind::Protocol, "protocol", "Protocol head"),
    (Kind::NumHword, "numhword", "Hyphenated word, letters and digits"),
    (Kind::AsciiHword, "asciihword", "Hyphenated word, all ASCII"),
    (Kind::Hword, "hword", "Hyphenated word, all letters"),
    (Kind::UrlPath, "url_path", "URL path"),
    (Kind::File, "file", "File or path name"),
    (Kind::Float, "float", "Decimal notation"),
    (Kind::Int, "int", "Signed integer"),
    (Kind::Uint, "uint", "Unsigned integer"),
    (Kind::Entity, "entity", "XML entity"),
];

impl Kind {
    /// Returns the number of the type.
    pub(super) fn number(self) -> i32 {
        self as i32
    }

    /// Returns the name and the description of the type.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        let found = KINDS.iter().find(|(kind, ..)| *kind == self);
        found.map_or(("", ""), |(_, alias, description)| (alias, description))
    }

    /// True for tokens that no dictionary reads: they aren't searched.
    pub(super) fn is_ignored(self) -> bool {
        matches!(self, Kind::Blank | Kind::Tag | Kind::Protocol | Kind::Entity)
    }

    /// True for words without digits, which dictionaries of a language read.
    pub(super) fn is_word(self) -> bool {
        self.is_ascii_word() || matches!(self, Kind::Word | Kind::Hword | Kind::HwordPart)
    }

    /// True for words of ASCII letters.
    pub(super) fn is_ascii_word(self) -> bool {
        matches!(self, Kind::AsciiWord | Kind::AsciiHword | Kind::HwordAsciiPart)
    }
}
