//! A document of XML in memory.

use std::cell::Cell;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::error::{Error, Result};
use crate::sqlstate;

/// The most levels of elements.
const DEPTH_MAX: usize = 1_000;

/// An element or a text. The root, at place 0, is the document, which has no name.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The name of an element; none for a text and for the document.
    pub(super) name: Option<String>,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) children: Vec<usize>,
    pub(super) parent: usize,
    /// The characters of a text; none for an element.
    pub(super) text: Option<String>,
}

/// A document. Nodes are in the order in which they begin.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) nodes: Vec<Node>,
    /// The work that XPaths may still do: visits of nodes, and bytes of their texts.
    left: Cell<usize>,
}

/// The most work of an XPath: some 16 million visits of nodes, or copies of 256 MiB of text.
const WORK_MAX: usize = 256 << 20;

/// The work of a visit of a node.
const VISIT: usize = 16;

fn wrong(problem: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("a text is no XML: {problem}"))
}

impl Document {
    /// Reads a document with one element at the top.
    pub(super) fn read(text: &str) -> Result<Document> {
        let mut reader = Reader::from_str(text);
        let mut document = Document { nodes: vec![Node::default()], left: Cell::new(WORK_MAX) };
        let mut open = vec![0];
        loop {
            let event = reader.read_event().map_err(|error| wrong(&error))?;
            let parent = open.last().copied().unwrap_or(0);
            match event {
                Event::Start(start) => {
                    if open.len() > DEPTH_MAX {
                        return Err(wrong(&format!("it has more than {DEPTH_MAX} levels")));
                    }
                    open.push(document.element(&start, parent)?);
                }
                Event::Empty(start) => {
                    document.element(&start, parent)?;
                }
                Event::End(_) => {
                    open.pop();
                }
                Event::Text(text) => {
                    let text = text.xml_content().map_err(|error| wrong(&error))?;
                    document.text(&text, parent)?;
                }
                Event::CData(text) => {
                    let text = text.decode().map_err(|error| wrong(&error))?;
                    document.text(&text, parent)?;
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().map_err(|error| wrong(&error))?;
                    let char = reference.resolve_char_ref().map_err(|error| wrong(&error))?;
                    let text = match char {
                        Some(char) => char.to_string(),
                        None => {
                            predefined(&name).ok_or_else(|| wrong(&format!("&{name}; is not known")))?.into()
                        }
                    };
                    document.text(&text, parent)?;
                }
                Event::DocType(_) => return Err(wrong(&"a document type is not supported")),
                Event::Eof if open.len() > 1 => return Err(wrong(&"an element isn't closed")),
                Event::Eof if document.nodes[0].children.len() != 1 => {
                    return Err(wrong(&"one element at the top was expected"));
                }
                Event::Eof => return Ok(document),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
    }

    /// Counts visits of nodes. Fails if an XPath makes too many.
    pub(super) fn visit(&self, nodes: usize) -> Result<()> {
        self.work(nodes.saturating_mul(VISIT))
    }

    /// Counts bytes of text, or other work.
    pub(super) fn work(&self, amount: usize) -> Result<()> {
        match self.left.get().checked_sub(amount) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Error::invalid("an XPath would visit too many nodes, or copy too much text")
                .hint("Write a path with fewer steps such as // and with fewer nested conditions.")
                .code(sqlstate::PROGRAM_LIMIT_EXCEEDED)),
        }
    }

    /// Adds a node below a parent and returns its place.
    fn add(&mut self, node: Node) -> usize {
        let (place, parent) = (self.nodes.len(), node.parent);
        self.nodes.push(node);
        self.nodes[parent].children.push(place);
        place
    }

    fn element(&mut self, start: &BytesStart<'_>, parent: usize) -> Result<usize> {
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| wrong(&error));
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| wrong(&error))?;
            let value = attribute.unescape_value().map_err(|error| wrong(&error))?;
            attributes.push((utf8(attribute.key.as_ref())?, value.into_owned()));
        }
        let name = Some(utf8(start.name().as_ref())?);
        Ok(self.add(Node { name, attributes, parent, ..Node::default() }))
    }

    /// Adds characters. Those behind others continue them.
    fn text(&mut self, text: &str, parent: usize) -> Result<()> {
        if parent == 0 {
            let is_blank = text.chars().all(char::is_whitespace);
            return if is_blank { Ok(()) } else { Err(wrong(&"there is text beside the top element")) };
        }
        if let Some(last) = self.nodes[parent].children.last().copied()
            && let Some(known) = &mut self.nodes[last].text
        {
            known.push_str(text);
        } else if !text.is_empty() {
            self.add(Node { text: Some(text.to_string()), parent, ..Node::default() });
        }
        Ok(())
    }

    /// Returns the number of bytes of all characters in a node.
    pub(super) fn length(&self, place: usize) -> usize {
        let (mut length, mut open) = (0, vec![place]);
        while let Some(place) = open.pop() {
            let node = &self.nodes[place];
            length += node.text.as_ref().map_or(0, String::len);
            open.extend(&node.children);
        }
        length
    }

    /// Returns all characters in a node.
    pub(super) fn string(&self, place: usize) -> String {
        let mut out = String::new();
        let mut open = vec![place];
        while let Some(place) = open.pop() {
            let node = &self.nodes[place];
            out.push_str(node.text.as_deref().unwrap_or_default());
            open.extend(node.children.iter().rev());
        }
        out
    }
}

fn predefined(name: &str) -> Option<&'static str> {
    Some(match name {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "apos" => "'",
        "quot" => "\"",
        _ => return None,
    })
}
