//! Every configuration that is shown to users, asked of the real daemons: the main files of `examples/`, and the `yaml`
//! blocks of the documentation.
//!
//! A block is a whole main file unless a comment right before it says otherwise: `<!-- with: escaper, resolver -->` adds
//! these sections, `<!-- refused: TEXT -->` says that there must be an error with this text, `<!-- not alone -->` that
//! it refers to files that are not there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sluice_testkit::binary;

/// Those that own sections which examples have, and check what others own only by name.
const DAEMONS: [&str; 5] = ["proxyd", "resolverd", "certgend", "auditd", "icap-stub"];

/// What a block may leave out.
const SECTIONS: [(&str, &str); 3] = [
    ("resolver", "resolver: [{name: default, type: c_ares}]\n"),
    (
        "escaper",
        "escaper: [{name: default, type: direct_fixed, resolver: default}]\n",
    ),
    (
        "server",
        "server: [{name: http, type: http_proxy, escaper: default, listen: 127.0.0.1:8080}]\n",
    ),
];

fn root() -> PathBuf {
    Path::new("..").canonicalize().unwrap()
}

/// What all daemons say against a main file; nothing if it is good.
fn errors(main: &Path) -> String {
    let mut errors = String::new();
    for daemon in DAEMONS {
        let output = Command::new(binary(daemon))
            .args(["-t", "-v", "-c"])
            .arg(main)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() || told.contains("warning: ") {
            errors += &format!("{daemon}: {told}");
        }
    }
    errors
}

/// All files below `dir` of which the test is true.
fn files(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[derive(Debug, Default, PartialEq)]
struct Block {
    line: usize,
    text: String,
    with: Vec<String>,
    refused: Option<String>,
    alone: bool,
}

/// The `yaml` blocks of a page.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut marks: Vec<&str> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(mark) = line.strip_prefix("<!-- ").and_then(|mark| mark.strip_suffix(" -->")) {
            marks.push(mark);
        } else if line == "```yaml" {
            let text = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```")
                .flat_map(|line| [line, "\n"])
                .collect();
            blocks.push(block(number + 1, text, &marks));
            marks.clear();
        } else {
            assert!(
                !line.trim_start().starts_with("```y"),
                "line {}: a block that no test sees",
                number + 1
            );
            marks.clear();
        }
    }
    blocks
}

fn block(line: usize, text: String, marks: &[&str]) -> Block {
    let mut block = Block {
        line,
        text,
        alone: true,
        ..Block::default()
    };
    for mark in marks {
        if *mark == "not alone" {
            block.alone = false;
        } else if let Some(sections) = mark.strip_prefix("with: ") {
            block.with = sections.split(", ").map(str::to_owned).collect();
        } else if let Some(text) = mark.strip_prefix("refused: ") {
            block.refused = Some(text.to_owned());
        } else {
            panic!("line {line}: what does `{mark}` mean?");
        }
    }
    block
}

impl Block {
    /// The block with the sections that it wants added.
    fn main_file(&self) -> String {
        let mut text = self.text.clone();
        for wanted in &self.with {
            let (_, section) = SECTIONS
                .iter()
                .find(|(name, _)| name == wanted)
                .unwrap_or_else(|| panic!("line {}: no section `{wanted}` to add", self.line));
            text += section;
        }
        text
    }

    /// What is wrong, if it is not what it says it is.
    fn fault(&self) -> Option<String> {
        let dir = tempfile::TempDir::new().unwrap();
        let main = dir.path().join("main.yml");
        fs::write(&main, self.main_file()).unwrap();
        let errors = errors(&main);
        match &self.refused {
            Some(text) if errors.contains(text) => None,
            Some(text) => Some(format!("expected an error with `{text}`, found `{errors}`")),
            None if errors.is_empty() => None,
            None => Some(errors),
        }
    }
}

#[test]
fn blocks_are_found_with_their_marks() {
    let page = "<!-- with: escaper, resolver -->\n```yaml\na: 1\n```\n\n```text\nb\n```\n<!-- not alone -->\n```yaml\nc\n```\n";
    let found = blocks(page);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].line, found[0].text.as_str()), (2, "a: 1\n"));
    assert_eq!(found[0].with, ["escaper", "resolver"]);
    assert!(found[0].alone && !found[1].alone);
}

#[test]
fn every_example_is_good() {
    let examples = files(&root().join("examples"), &|path| path.ends_with("main.yml"));
    assert!(examples.len() >= 10, "{examples:?}");
    for main in examples {
        let errors = errors(&main);
        assert!(errors.is_empty(), "{}:\n{errors}", main.display());
        assert!(main.with_file_name("README.md").exists(), "{}", main.display());
    }
}

/// What an editor would mark: the schema of the group, asked by somebody else's validator.
#[test]
fn every_example_fits_the_schema_and_a_misspelt_one_does_not() {
    const VALIDATE: &str = r"
import json, sys, jsonschema_rs, yaml
schema = jsonschema_rs.validator_for(json.load(sys.stdin))
for name in sys.argv[1:]:
    for document in yaml.safe_load_all(open(name)):
        for error in schema.iter_errors(document):
            print(name, error.instance_path)
";
    let dir = tempfile::TempDir::new().unwrap();
    let misspelt = dir.path().join("misspelt.yml");
    let text = fs::read_to_string(root().join("examples/quickstart/main.yml")).unwrap();
    fs::write(&misspelt, text.replace("http_proxy", "htp_proxy")).unwrap();
    let mut schema = Command::new(binary("sluicectl"))
        .arg("schema")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut examples = files(&root().join("examples"), &|path| path.ends_with("main.yml"));
    examples.push(misspelt.clone());
    let output = Command::new("python3")
        .args(["-c", VALIDATE])
        .args(&examples)
        .stdin(schema.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(
        schema.wait().unwrap().success() && output.status.success(),
        "{output:?}"
    );
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told.trim(), format!("{} ['server']", misspelt.display()));
}

#[test]
fn every_configuration_of_the_documentation_is_what_it_says() {
    let mut pages = files(&root().join("doc"), &|path| path.extension().is_some_and(|e| e == "md"));
    pages.push(root().join("README.md"));
    let mut count = 0;
    let mut faults = String::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for block in blocks(&text).into_iter().filter(|block| block.alone) {
            count += 1;
            if let Some(fault) = block.fault() {
                faults += &format!("{}:{}: {fault}\n", page.display(), block.line);
            }
        }
    }
    assert!(count >= 20, "{count} blocks");
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let root = root();
    let mut pages = files(&root.join("doc"), &|path| path.extension().is_some_and(|e| e == "md"));
    pages.extend(files(&root.join("examples"), &|path| path.ends_with("README.md")));
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        pages.push(root.join(name));
    }
    let mut faults = String::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.with_file_name(path),
            };
            let found = match fs::read_to_string(&target) {
                Ok(text) => anchor.is_empty() || anchors(&text).any(|heading| heading == anchor),
                Err(_) => target.is_dir() && anchor.is_empty(),
            };
            if !found {
                faults += &format!("{}: {link}\n", page.display());
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// What headings are called in links.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}
