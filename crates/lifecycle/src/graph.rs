//! The dependency graph of a configuration, for `-g`.

use std::fmt::{self, Write};

use clap::ValueEnum;

/// Languages that a [`Graph`] is printed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// The dot language of Graphviz.
    Graphviz,
    /// A Mermaid flow chart.
    Mermaid,
    /// A PlantUML component diagram.
    Plantuml,
}

/// What a node of the configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    /// `auditor`
    Auditor,
    /// `user_group`
    UserGroup,
    /// `resolver`
    Resolver,
    /// `escaper`
    Escaper,
    /// `server`
    Server,
}

impl NodeKind {
    const ALL: [Self; 5] = [
        Self::Auditor,
        Self::UserGroup,
        Self::Resolver,
        Self::Escaper,
        Self::Server,
    ];

    /// The section's key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::UserGroup => "user_group",
            Self::Resolver => "resolver",
            Self::Escaper => "escaper",
            Self::Server => "server",
        }
    }

    const fn colour(self) -> &'static str {
        match self {
            Self::Auditor => "black",
            Self::UserGroup => "purple",
            Self::Resolver => "blue",
            Self::Escaper => "red",
            Self::Server => "green",
        }
    }
}

/// A node by kind and name.
pub type Node = (NodeKind, String);

/// Which object of a configuration uses which.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<(Node, Node)>,
}

impl Graph {
    /// A graph of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object, once.
    pub fn node(&mut self, kind: NodeKind, name: &str) {
        let node = (kind, name.to_owned());
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
    }

    /// Adds that `user` uses `used`, once, and both objects.
    pub fn edge(&mut self, user: (NodeKind, &str), used: (NodeKind, &str)) {
        self.node(user.0, user.1);
        self.node(used.0, used.1);
        let edge = ((user.0, user.1.to_owned()), (used.0, used.1.to_owned()));
        if !self.edges.contains(&edge) {
            self.edges.push(edge);
        }
    }

    /// The graph as text.
    pub fn render(&self, format: GraphFormat) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = match format {
            GraphFormat::Graphviz => self.graphviz(&mut text),
            GraphFormat::Mermaid => self.mermaid(&mut text),
            GraphFormat::Plantuml => self.plantuml(&mut text),
        };
        text
    }

    fn of(&self, kind: NodeKind) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |(k, _)| *k == kind)
    }

    fn kinds(&self) -> impl Iterator<Item = NodeKind> {
        NodeKind::ALL.into_iter().filter(|k| self.of(*k).next().is_some())
    }

    fn graphviz(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "strict digraph G {{")?;
        for kind in self.kinds() {
            writeln!(out, "  subgraph cluster_{0} {{\n    label=\"{0}\";", kind.name())?;
            for node in self.of(kind) {
                let (id, label) = (quoted(node), escape(&node.1));
                writeln!(out, "    {id} [label=\"{label}\", color={}];", kind.colour())?;
            }
            writeln!(out, "  }}")?;
        }
        for (user, used) in &self.edges {
            let style = match (user.0, used.0) {
                (NodeKind::Escaper, NodeKind::Resolver) | (_, NodeKind::UserGroup) => " [style=dotted]",
                _ => "",
            };
            writeln!(out, "  {} -> {}{style};", quoted(user), quoted(used))?;
        }
        writeln!(out, "}}")
    }

    fn mermaid(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "flowchart LR")?;
        for kind in self.kinds() {
            writeln!(out, "  subgraph {}", kind.name())?;
            for node in self.of(kind) {
                writeln!(out, "    {}[\"{}\"]", id(node), node.1.replace('"', "#quot;"))?;
            }
            writeln!(out, "  end")?;
        }
        for (user, used) in &self.edges {
            let arrow = match (user.0, used.0) {
                (NodeKind::Escaper, NodeKind::Resolver) => "-. dns .->",
                (_, NodeKind::UserGroup) => "o-. auth .-o",
                (_, NodeKind::Auditor) => "<-->",
                _ => "-->",
            };
            writeln!(out, "  {} {arrow} {}", id(user), id(used))?;
        }
        for (kind, link) in [
            (NodeKind::Server, "Client ===> server"),
            (NodeKind::Escaper, "escaper ===> Target"),
        ] {
            if self.of(kind).next().is_some() {
                writeln!(out, "  {link}")?;
            }
        }
        Ok(())
    }

    fn plantuml(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "@startuml\nhide @unlinked\nleft to right direction")?;
        for kind in self.kinds() {
            writeln!(out, "package {} {{", kind.name())?;
            for node in self.of(kind) {
                writeln!(out, "  component \"{}\" as {}", node.1.replace('"', "'"), id(node))?;
            }
            writeln!(out, "}}")?;
        }
        for (user, used) in &self.edges {
            let arrow = match (user.0, used.0) {
                (NodeKind::Escaper, NodeKind::Resolver) | (_, NodeKind::UserGroup) => "..>",
                _ => "-->",
            };
            writeln!(out, "{} {arrow} {}", id(user), id(used))?;
        }
        writeln!(out, "@enduml")
    }
}

/// `"kind_name"`: a quoted id takes every name.
fn quoted((kind, name): &Node) -> String {
    format!("\"{}_{}\"", kind.name(), escape(name))
}

fn escape(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

/// `kind_name` with what these languages do not take in an id written as its code, so that no two names meet.
fn id((kind, name): &Node) -> String {
    let mut id = format!("{}_", kind.name());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            id.push(c);
        } else if c == '_' {
            id.push_str("__");
        } else {
            let _ = write!(id, "_{:x}_", u32::from(c));
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Graph {
        let mut graph = Graph::new();
        graph.edge((NodeKind::Server, "web"), (NodeKind::Escaper, "out-1"));
        graph.edge((NodeKind::Server, "web"), (NodeKind::UserGroup, "staff"));
        graph.edge((NodeKind::Server, "web"), (NodeKind::Auditor, "a"));
        graph.edge((NodeKind::Escaper, "out-1"), (NodeKind::Resolver, "r\"x"));
        graph.edge((NodeKind::Escaper, "out-1"), (NodeKind::Resolver, "r\"x"));
        graph
    }

    #[test]
    fn graphviz_quotes_names_and_dots_what_is_asked() {
        let text = small().render(GraphFormat::Graphviz);
        assert!(
            text.starts_with("strict digraph G {\n  subgraph cluster_auditor {"),
            "{text}"
        );
        assert!(
            text.contains("  \"escaper_out-1\" -> \"resolver_r\\\"x\" [style=dotted];\n"),
            "{text}"
        );
        assert!(text.contains("  \"server_web\" -> \"escaper_out-1\";\n"), "{text}");
        assert_eq!(text.matches("->").count(), 4, "{text}");
    }

    #[test]
    fn mermaid_ends_with_client_and_target() {
        let text = small().render(GraphFormat::Mermaid);
        assert!(
            text.contains("  escaper_out_2d_1 -. dns .-> resolver_r_22_x\n"),
            "{text}"
        );
        assert!(text.contains("  server_web <--> auditor_a\n"), "{text}");
        assert!(
            text.ends_with("  Client ===> server\n  escaper ===> Target\n"),
            "{text}"
        );
    }

    #[test]
    fn plantuml_hides_what_nobody_uses() {
        let text = small().render(GraphFormat::Plantuml);
        assert!(text.contains("hide @unlinked"), "{text}");
        assert!(text.contains("server_web ..> user_group_staff\n"), "{text}");
    }

    #[test]
    fn names_that_differ_have_ids_that_differ() {
        let id = |name: &str| id(&(NodeKind::Server, name.to_owned()));
        let names = ["a-b", "a_b", "a.b", "a__b", "a_2d_b"];
        for (i, one) in names.iter().enumerate() {
            for other in &names[i + 1..] {
                assert_ne!(id(one), id(other), "{one} {other}");
            }
        }
    }
}
