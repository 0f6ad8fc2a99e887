//! Bracket expressions of regular expressions: `[a-z]`, `[^[:alpha:]_]`, `[[.a.]]`.

use std::str::Chars;

use super::translate::character;

/// A part of a bracket expression.
enum Item {
    Character(char),
    /// A class in the syntax of `regex`.
    Class(&'static str),
}

/// Translates an expression whose `[` has been read.
pub(super) fn translate(chars: &mut Chars<'_>, escapes: bool, lines: bool) -> Result<String, String> {
    let mut out = String::from("[");
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
        out.push('^');
    }
    let mut is_first = true;
    loop {
        let Some(c) = chars.next() else { return Err("brackets [] are not balanced".into()) };
        if c == ']' && !is_first {
            break;
        }
        is_first = false;
        match item(c, chars, escapes)? {
            Item::Class(class) => out.push_str(class),
            Item::Character(low) => {
                let is_range = chars.as_str().starts_with('-') && !chars.as_str().starts_with("-]");
                push(&mut out, low);
                if !is_range {
                    continue;
                }
                chars.next();
                let end = chars.next().ok_or("brackets [] are not balanced")?;
                let Item::Character(high) = item(end, chars, escapes)? else {
                    return Err("a range ends with a class".into());
                };
                if high < low {
                    return Err(format!("the range {low}-{high} is empty"));
                }
                out.push('-');
                push(&mut out, high);
            }
        }
    }
    if negated && lines {
        out.push_str("\\n");
    }
    out.push(']');
    Ok(out)
}

/// Reads one item, whose first character has been read.
fn item(first: char, chars: &mut Chars<'_>, escapes: bool) -> Result<Item, String> {
    if first == '\\' && escapes {
        let letter = chars.next().ok_or("it ends with a backslash")?;
        return Ok(match letter {
            'd' => Item::Class("\\d"),
            's' => Item::Class("\\s"),
            'w' => Item::Class("\\w"),
            'D' => Item::Class("\\D"),
            'S' => Item::Class("\\S"),
            'W' => Item::Class("\\W"),
            letter => match character(letter, chars) {
                Some(code) => Item::Character(
                    char::from_u32(code).ok_or_else(|| format!("there is no character {code:X}"))?,
                ),
                None => Item::Character(letter),
            },
        });
    }
    let kind = chars.as_str().chars().next();
    let (Some(kind @ (':' | '.' | '=')), '[') = (kind, first) else { return Ok(Item::Character(first)) };
    chars.next();
    let rest = chars.as_str();
    let end = format!("{kind}]");
    let (name, after) = rest.split_once(&end).ok_or("brackets [] are not balanced")?;
    *chars = after.chars();
    if kind == ':' {
        return class(name).map(Item::Class).ok_or_else(|| format!("there is no character class [:{name}:]"));
    }
    let mut characters = name.chars();
    match (characters.next(), characters.next()) {
        (Some(c), None) => Ok(Item::Character(c)),
        _ => Err(format!("there is no collating element [{kind}{name}{kind}]")),
    }
}

fn class(name: &str) -> Option<&'static str> {
    Some(match name {
        "alpha" => "\\p{Alphabetic}",
        "digit" => "0-9",
        "alnum" => "\\p{Alphabetic}\\p{Nd}",
        "upper" => "\\p{Uppercase}",
        "lower" => "\\p{Lowercase}",
        "space" => "\\s",
        "word" => "\\w",
        "punct" => "[:punct:]",
        "xdigit" => "[:xdigit:]",
        "blank" => "[:blank:]",
        "cntrl" => "[:cntrl:]",
        "print" => "[:print:]",
        "graph" => "[:graph:]",
        "ascii" => "[:ascii:]",
        _ => return None,
    })
}

/// Writes a character that stands for itself within brackets.
fn push(out: &mut String, c: char) {
    match c {
        '[' | ']' | '\\' | '^' | '-' | '&' | '~' => out.extend(['\\', c]),
        c if c.is_control() => out.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        c => out.push(c),
    }
}
