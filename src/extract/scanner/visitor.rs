//! What receives the values that a scan follows.

use crate::extract::trie::Node;

/// Receives the values on followed paths, in the order of the text.
pub(crate) trait Visitor {
    /// Whether paths through a node (one bit each) are still followed.
    fn wants(&self, paths: u64) -> bool;
    /// A string at a leaf, escapes resolved; `None` when it is longer than any text that is compared.
    fn string(&mut self, node: Node, text: Option<&str>);
    /// A number or literal at a leaf; `first` is its first byte.
    fn scalar(&mut self, node: Node, first: u8);
    /// An object or array at a leaf, where a scalar was expected.
    fn container(&mut self, node: Node);
    /// A string, number or literal at a node with children, in place of an object; `first` is its first byte.
    fn scalar_inside(&mut self, _node: Node, _first: u8) {}
    /// An array on a followed path begins.
    fn open_array(&mut self, _node: Node) {}
    /// An object on a followed path begins.
    fn open(&mut self, _node: Node) {}
    /// An object on a followed path ends.
    fn close(&mut self, _node: Node) {}
    /// A followed key occurs again in its object, at this offset of the text.
    fn duplicate_key(&mut self, node: Node, start_offset: u64);
}
