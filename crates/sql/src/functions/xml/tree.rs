//! A document of XML in memory.

use std::cell::Cell;
use std::collections::HashMap;

use super::names::parts;
use super::scan::{self, Purpose};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most nodes.
pub(super) const NODES_MAX: usize = 2_000_000;

/// The namespace of the prefix `xml`.
pub(super) const XML_SPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// A comment, or an instruction, which has a target.
#[derive(Debug)]
pub(super) struct Remark {
    pub(super) target: Option<String>,
    pub(super) content: String,
}

/// An element, a text or a remark. The root, at place 0, is the document, which has no name.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The name of an element; none for others.
    pub(super) name: Option<String>,
    pub(super) attributes: Vec<(String, String)>,
    /// The namespaces of the element, and then of each attribute, as places in [`Document::spaces`].
    pub(super) spaces: Vec<usize>,
    /// The declared prefixes and their namespaces.
    pub(super) declared: Vec<(String, String)>,
    pub(super) children: Vec<usize>,
    pub(super) parent: usize,
    /// The characters of a text; none for others.
    pub(super) text: Option<String>,
    /// True for a text that is a CDATA section.
    pub(super) is_cdata: bool,
    pub(super) remark: Option<Box<Remark>>,
}

/// A document. Nodes are in the order in which they begin.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) nodes: Vec<Node>,
    /// The namespaces; the first one is none.
    pub(super) spaces: Vec<String>,
    /// The namespaces of the prefixes that an XPath has; none if prefixes are part of names.
    pub(super) prefixes: Option<HashMap<String, String>>,
    /// The element that is being read.
    current: usize,
    /// The prefixes in scope, with the places of their namespaces, of which the last one counts.
    scope: HashMap<String, Vec<usize>>,
    /// The places of namespaces in [`Document::spaces`].
    places: HashMap<String, usize>,
    /// The work that XPaths may still do: visits of nodes, and bytes of their texts.
    left: Cell<usize>,
}

/// The most work of an XPath: some 16 million visits of nodes, or copies of 256 MiB of text.
const WORK_MAX: usize = 256 << 20;

/// The work of a visit of a node.
const VISIT: usize = 16;

impl Document {
    /// Creates a document without nodes.
    pub(super) fn new() -> Document {
        Document {
            nodes: vec![Node::default()],
            spaces: vec![String::new()],
            prefixes: None,
            current: 0,
            scope: HashMap::new(),
            places: HashMap::from([(String::new(), 0)]),
            left: Cell::new(WORK_MAX),
        }
    }

    /// Reads a document with one element at the top, without comments.
    pub(super) fn read(text: &str) -> Result<Document> {
        scan::read(text, Purpose::Values)
            .map_err(|fault| Error::invalid(format!("a text is no XML: {}", fault.in_line(text))))
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

    /// Adds a node below the element at hand and returns its place.
    fn add(&mut self, node: Node) -> usize {
        let (place, parent) = (self.nodes.len(), self.current);
        self.nodes.push(Node { parent, ..node });
        self.nodes[parent].children.push(place);
        place
    }

    /// Begins an element. Fails if a prefix has no namespace.
    pub(super) fn open(
        &mut self,
        name: &str,
        attributes: Vec<(&str, String)>,
        purpose: Purpose,
    ) -> Result<(), String> {
        let mut node = Node { name: Some(name.to_string()), ..Node::default() };
        match purpose {
            Purpose::Check(_) => return Ok(()),
            Purpose::Values => {
                let attributes = attributes.into_iter();
                node.attributes = attributes.map(|(name, value)| (name.to_string(), value)).collect();
            }
            Purpose::Nodes => self.name_spaces(&mut node, name, attributes)?,
        }
        self.current = self.add(node);
        Ok(())
    }

    /// Separates declarations of namespaces from attributes, and finds the namespaces of all names.
    fn name_spaces(
        &mut self,
        node: &mut Node,
        name: &str,
        attributes: Vec<(&str, String)>,
    ) -> Result<(), String> {
        for (key, value) in attributes {
            let prefix = if key == "xmlns" { Some("") } else { key.strip_prefix("xmlns:") };
            let Some(prefix) = prefix else {
                node.attributes.push((key.to_string(), value));
                continue;
            };
            let space = self.place_of(&value);
            self.scope.entry(prefix.to_string()).or_default().push(space);
            node.declared.push((prefix.to_string(), value));
        }
        node.spaces.push(match self.space_of(parts(name).0) {
            None => {
                return Err(format!(
                    "Namespace prefix {} on {} is not defined",
                    parts(name).0,
                    parts(name).1
                ));
            }
            Some(space) => space,
        });
        for (attribute, _) in &node.attributes {
            let (prefix, local) = parts(attribute);
            let space = if prefix.is_empty() { Some(0) } else { self.space_of(prefix) };
            node.spaces.push(space.ok_or_else(|| {
                let element = parts(name).1;
                format!("Namespace prefix {prefix} for {local} on {element} is not defined")
            })?);
        }
        Ok(())
    }

    /// Returns the place of a namespace.
    fn place_of(&mut self, space: &str) -> usize {
        if let Some(place) = self.places.get(space) {
            return *place;
        }
        self.spaces.push(space.to_string());
        self.places.insert(space.to_string(), self.spaces.len() - 1);
        self.spaces.len() - 1
    }

    /// Returns the place of a prefix's namespace; none if it isn't declared.
    fn space_of(&mut self, prefix: &str) -> Option<usize> {
        let found = self.scope.get(prefix).and_then(|spaces| spaces.last()).copied();
        match prefix {
            "" => Some(found.unwrap_or(0)),
            "xml" => Some(self.place_of(XML_SPACE)),
            _ => found,
        }
    }

    /// Ends the element at hand.
    pub(super) fn close(&mut self, purpose: Purpose) {
        if let Purpose::Check(_) = purpose {
            return;
        }
        let node = &self.nodes[self.current];
        for (prefix, _) in &node.declared {
            if let Some(spaces) = self.scope.get_mut(prefix) {
                spaces.pop();
            }
        }
        self.current = node.parent;
    }

    /// Adds characters. Those behind others continue them.
    pub(super) fn add_text(&mut self, text: &str, purpose: Purpose) {
        if text.is_empty() || matches!(purpose, Purpose::Check(_)) {
            return;
        }
        let last = self.nodes[self.current].children.last().copied();
        match last.map(|last| &mut self.nodes[last]) {
            Some(Node { text: Some(known), is_cdata: false, .. }) => known.push_str(text),
            _ => {
                self.add(Node { text: Some(text.to_string()), ..Node::default() });
            }
        }
    }

    /// Adds a CDATA section, which Spark's functions take for text.
    pub(super) fn add_cdata(&mut self, text: &str, purpose: Purpose) {
        match purpose {
            Purpose::Nodes => {
                self.add(Node { text: Some(text.to_string()), is_cdata: true, ..Node::default() });
            }
            _ => self.add_text(text, purpose),
        }
    }

    /// Adds a comment or an instruction, which only PostgreSQL's functions see.
    pub(super) fn add_remark(&mut self, target: Option<&str>, content: &str, purpose: Purpose) {
        if purpose == Purpose::Nodes {
            let remark = Remark { target: target.map(str::to_string), content: content.to_string() };
            self.add(Node { remark: Some(Box::new(remark)), ..Node::default() });
        }
    }

    /// Returns the number of bytes of all characters in a node.
    pub(super) fn length(&self, place: usize) -> usize {
        if let Some(remark) = &self.nodes[place].remark {
            return remark.content.len();
        }
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
        if let Some(remark) = &self.nodes[place].remark {
            return remark.content.clone();
        }
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
