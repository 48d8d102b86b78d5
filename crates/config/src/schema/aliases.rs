//! Adds other names of keys and words to schemas.
//!
//! A derived schema knows the main name of each key and word; a file may use any, and words in any case. Which names a
//! type takes, and which of them mean the same field, only its `Deserialize` knows: so it is asked, with maps of one key.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::decode::{Context, DecodeError, Decoder, Names};
use crate::node::{Gap, Key};
use crate::{Node, Path, PathStep};

/// How deep maps within maps are asked.
const DEEPEST: usize = 4;

/// What a type answers to a node, always an error; the context tells which structs were asked for.
pub(super) type Ask<'a> = &'a dyn Fn(Decoder<'_>) -> Option<DecodeError>;

/// Adds the other names of all keys and words of `schema` and of what it refers to.
pub(super) fn add(schema: &mut Value, definitions: &mut Map<String, Value>, ask: Ask<'_>) {
    Walk { definitions, ask }.visit(schema, &Path::root());
}

struct Walk<'a> {
    definitions: &'a mut Map<String, Value>,
    ask: Ask<'a>,
}

impl Walk<'_> {
    /// Visits the schema of what stands at `path`.
    fn visit(&mut self, schema: &mut Value, path: &Path) {
        let Value::Object(schema) = schema else { return };
        if let Some(Value::String(reference)) = schema.get("$ref") {
            let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
            // Taken out meanwhile, so that a definition that refers to itself ends.
            if let Some(mut definition) = self.definitions.remove(&name) {
                self.visit(&mut definition, path);
                self.definitions.insert(name, definition);
            }
        }
        if path.steps().len() <= DEEPEST {
            self.visit_words(schema, path);
        }
        for several in ["anyOf", "oneOf", "allOf"] {
            if let Some(Value::Array(schemas)) = schema.get_mut(several) {
                schemas.iter_mut().for_each(|schema| self.visit(schema, path));
            }
        }
        if let Some(items) = schema.get_mut("items") {
            self.visit(items, path);
        }
        if schema.contains_key("properties") && path.steps().len() <= DEEPEST {
            self.visit_struct(schema, path);
        }
    }

    /// Beside the words that a schema offers, takes all that the enum at `path` does.
    fn visit_words(&self, schema: &mut Map<String, Value>, path: &Path) {
        let Some(mut offered) = words(schema) else { return };
        let Some(names) = self.names(path, Names::Variants, Node::Str("?".into())) else {
            return;
        };
        let spellings: Vec<String> = names.iter().map(|name| any_spelling(name)).collect();
        offered.push(json!({
            "type": "string",
            "pattern": format!("^({})$", spellings.join("|")),
            "not": {"enum": offered.iter().map(|word| word["const"].clone()).collect::<Vec<_>>()},
            "description": "another name or spelling",
        }));
        schema.remove("enum");
        schema.remove("type");
        schema.insert("oneOf".to_owned(), Value::Array(offered));
    }

    fn visit_struct(&mut self, schema: &mut Map<String, Value>, path: &Path) {
        let Some(fields) = self.names(path, Names::Fields, Node::Map(Vec::new())) else {
            return;
        };
        let marks: Vec<_> = fields
            .iter()
            .filter_map(|field| Some((*field, self.mark(path, field)?)))
            .collect();
        let Some(Value::Object(properties)) = schema.get_mut("properties") else {
            return;
        };
        let main: HashMap<u64, &str> = marks
            .iter()
            .filter(|(field, _)| properties.contains_key(*field))
            .map(|(field, mark)| (*mark, *field))
            .collect();
        for field in main.values() {
            if let Some(property) = properties.get_mut(*field) {
                self.visit(property, &path.then(PathStep::Key((*field).into())));
            }
        }
        let mut renamed = Vec::new();
        for (field, mark) in &marks {
            let Some(main) = main.get(mark).filter(|main| *main != field) else {
                continue;
            };
            let mut property = properties.get(*main).cloned().unwrap_or(Value::Bool(true));
            if let Value::Object(property) = &mut property {
                property.insert("description".to_owned(), format!("another name of `{main}`").into());
            }
            properties.insert((*field).to_owned(), property);
            renamed.push(*main);
        }
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            required.retain(|key| !renamed.iter().any(|main| key == main));
        }
    }

    /// The names that the struct or enum at `path` takes, if there is one that reads `node`.
    fn names(&self, path: &Path, what: Names, node: Node) -> Option<&'static [&'static str]> {
        let context = Context::capturing();
        (self.ask)(Decoder::new(&nest(path, node), &context));
        let asked = context.asked.take().unwrap_or_default();
        asked
            .into_iter()
            .rev()
            .find(|asked| asked.what == what && asked.at == *path)
            .map(|asked| asked.names)
    }

    /// What the names of one field have in common.
    fn mark(&self, path: &Path, field: &str) -> Option<u64> {
        let probe = Node::Map(vec![(Key::string(field), Node::Gap(Gap::Probe))]);
        let error = (self.ask)(Decoder::new(&nest(path, probe), &Context::default()))?;
        let at = path.then(PathStep::Key(field.into()));
        error.field.filter(|_| error.at.as_ref() == Some(&at))
    }
}

/// The words that a schema consists of, each as a schema of its own.
fn words(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    if let Some(Value::Array(words)) = schema.get("enum") {
        let word = |word: &Value| word.is_string().then(|| json!({"const": word}));
        return words.iter().map(word).collect();
    }
    let Some(Value::Array(members)) = schema.get("oneOf") else {
        return None;
    };
    let mut all = Vec::new();
    for member in members {
        match member {
            Value::Object(member) if member.get("const").is_some_and(Value::is_string) => {
                all.push(member.clone().into());
            }
            Value::Object(member) => all.extend(words(member)?),
            _ => return None,
        }
    }
    Some(all)
}

/// A pattern for a word in any case, with `-` or `_`. It is anchored outside.
fn any_spelling(word: &str) -> String {
    let mut pattern = String::new();
    for c in word.chars() {
        match c {
            '-' | '_' => pattern.push_str("[-_]"),
            c if c.is_ascii_alphabetic() => pattern.extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']),
            c if c.is_ascii_digit() => pattern.push(c),
            c => pattern.extend(['\\', c]),
        }
    }
    pattern
}

/// The node within maps of one key.
fn nest(path: &Path, node: Node) -> Node {
    path.steps().iter().rev().fold(node, |node, step| match step {
        PathStep::Key(key) => Node::Map(vec![(Key::string(key), node)]),
        PathStep::Index(_) => Node::Seq(vec![node]),
    })
}
