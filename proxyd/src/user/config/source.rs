//! Where dynamic users come from (users.md §9).

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::{FilePath, UrlStr};
use sluice_config::{Misfit, NotYet};

/// A file that is read again and again.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "SourceForm")]
pub(crate) struct SourceConfig {
    pub(crate) path: FilePath,
    pub(crate) format: Format,
}

/// What a list of users is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// An array of users.
    Json,
    /// Documents of a user or a list of users each.
    #[serde(alias = "yml")]
    Yaml,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "UserSource")]
enum SourceForm {
    Map(SourceMap),
    Str(UrlStr),
}

#[derive(PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SourceMap {
    r#type: SourceType,
    /// The file.
    path: Option<FilePath>,
    /// By the file's extension if it is not given, and YAML if that says nothing.
    format: Option<Format>,
    #[serde(alias = "script")]
    #[schemars(skip)]
    fetch_script: Option<NotYet>,
    #[serde(alias = "timeout")]
    #[schemars(skip)]
    fetch_timeout: Option<NotYet>,
    #[schemars(skip)]
    report_script: Option<NotYet>,
    #[schemars(skip)]
    report_timeout: Option<NotYet>,
}

/// The only type that there is.
#[derive(PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
enum SourceType {
    #[schemars(rename = "file")]
    File,
}

impl TryFrom<String> for SourceType {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match &*word.to_lowercase() {
            "file" => Ok(Self::File),
            other @ ("lua" | "python") => Err(format!("the source type `{other}` is not built yet in this version")),
            other => Err(format!("no source type is named `{other}`; it is `file`")),
        }
    }
}

impl SourceConfig {
    fn new(path: FilePath, format: Option<Format>) -> Self {
        let is_json = path
            .as_written()
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let format = format.unwrap_or(if is_json { Format::Json } else { Format::Yaml });
        Self { path, format }
    }

    fn of_url(url: &UrlStr) -> Result<Self, Misfit> {
        let url = &url.0;
        if url.scheme() != "file" {
            let message = format!("a source is a `file:` URL or a map, not a `{}:` URL", url.scheme());
            return Err(Misfit::new(message));
        }
        let path = url
            .to_file_path()
            .map_err(|()| Misfit::new("the URL names no absolute path of this host"))?;
        let mut format = None;
        for (key, value) in url.query_pairs() {
            format = Some(match (&*key, &*value.to_ascii_lowercase()) {
                ("format", "json") => Format::Json,
                ("format", "yaml" | "yml") => Format::Yaml,
                ("format", _) => {
                    return Err(Misfit::new(format!("the format is `json` or `yaml`, not `{value}`")));
                }
                _ => {
                    return Err(Misfit::new(format!(
                        "unknown parameter `{key}`; `format` is the only one"
                    )));
                }
            });
        }
        Ok(Self::new(FilePath::new(path), format))
    }
}

impl TryFrom<SourceForm> for SourceConfig {
    type Error = Misfit;

    fn try_from(form: SourceForm) -> Result<Self, Misfit> {
        let map = match form {
            SourceForm::Str(url) => return Self::of_url(&url),
            SourceForm::Map(map) => map,
        };
        let path = map.path.ok_or_else(|| Misfit::new("`path` is missing"))?;
        Ok(Self::new(path, map.format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(yaml: &str) -> Result<SourceConfig, String> {
        sluice_config::decode_text(yaml).map_err(|errors| errors.join("; "))
    }

    #[test]
    fn a_source_is_a_url_or_a_map() {
        let file = |path: &str, format| {
            Ok(SourceConfig {
                path: FilePath::new(path),
                format,
            })
        };
        for (yaml, expected) in [
            ("file:///a/b.json", file("/a/b.json", Format::Json)),
            ("file:///a/b%20c", file("/a/b c", Format::Yaml)),
            ("file:///a/b?format=JSON", file("/a/b", Format::Json)),
            ("{type: file, path: users.json}", file("users.json", Format::Json)),
            ("{type: File, path: users.yml}", file("users.yml", Format::Yaml)),
            ("{type: file, path: users, format: json}", file("users", Format::Json)),
        ] {
            assert_eq!(source(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        assert_eq!(
            source("{type: lua, fetch_script: users.lua}").unwrap_err(),
            "type: the source type `lua` is not built yet in this version; \
             fetch_script: `fetch_script` is not built yet in this version"
        );
        assert_eq!(
            source("{type: python}").unwrap_err(),
            "type: the source type `python` is not built yet in this version"
        );
        for yaml in [
            "http://h/users",
            "redis://h",
            "file://host/users",
            "file:///a?fmt=json",
            "file:///a?format=xml",
            "{type: file}",
            "{path: a}",
            "{type: http, path: a}",
            "[]",
        ] {
            assert!(source(yaml).is_err(), "{yaml}");
        }
    }
}
