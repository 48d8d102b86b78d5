//! `sluicectl user token`: what a user's `token` is made of.

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use sluice_auth::{CryptHash, CryptMethod, Digest, FastHash, MAX_PASSWORD, ROUNDS, SALT_LETTERS, Salt};

use crate::output::say;
use crate::{output, password};

/// How a token is made, and of what.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenOptions {
    /// How the password is hashed; fast_hash and md5_crypt are for what exists, they are quick to guess from
    #[arg(long = "type", value_enum, default_value_t = Kind::Sha512Crypt)]
    kind: Kind,

    /// Rounds of sha256_crypt and sha512_crypt, 5000 if not given: more cost more time at each check
    #[arg(long, value_parser = clap::value_parser!(u32).range(i64::from(*ROUNDS.start())..=i64::from(*ROUNDS.end())))]
    rounds: Option<u32>,

    /// Digests of fast_hash, all of which must match [default: blake3]
    #[arg(long, value_enum, value_delimiter = ',')]
    digest: Vec<DigestName>,

    /// Salt in place of a random one: 16 hexadecimal digits for fast_hash, else letters, digits, dots and slashes
    #[arg(long)]
    salt: Option<String>,

    /// Write a crypt string as a map of type xcrypt_hash
    #[arg(long)]
    map: bool,

    /// The password; others on this machine can see it here. Without it, the terminal or standard input is asked
    #[arg(long)]
    password: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    FastHash,
    Md5Crypt,
    Sha256Crypt,
    Sha512Crypt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum DigestName {
    Blake3,
    Md5,
    Sha1,
}

impl From<DigestName> for Digest {
    fn from(name: DigestName) -> Self {
        match name {
            DigestName::Blake3 => Self::Blake3,
            DigestName::Md5 => Self::Md5,
            DigestName::Sha1 => Self::Sha1,
        }
    }
}

impl TokenOptions {
    /// Refuses options that are not for the type.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.rounds.is_some() && matches!(self.kind, Kind::FastHash | Kind::Md5Crypt) {
            return Err("--rounds is for sha256_crypt and sha512_crypt alone");
        }
        if self.map && self.kind == Kind::FastHash {
            return Err("--map is for crypt strings; fast_hash always is a map");
        }
        if !self.digest.is_empty() && self.kind != Kind::FastHash {
            return Err("--digest is for fast_hash alone");
        }
        Ok(())
    }

    fn make(&self, password: &str) -> anyhow::Result<Made> {
        let method = match self.kind {
            Kind::FastHash => return self.fast(password).map(Made::Map),
            Kind::Md5Crypt => CryptMethod::Md5,
            Kind::Sha256Crypt => CryptMethod::Sha256,
            Kind::Sha512Crypt => CryptMethod::Sha512,
        };
        let salt = self
            .salt
            .clone()
            .map_or_else(|| random_letters(method.max_salt()), Ok)?;
        let text = CryptHash::make(method, self.rounds, &salt, password)?.reveal();
        Ok(match self.map {
            true => Made::Map(vec![("type", "xcrypt_hash".to_owned()), ("value", text)]),
            false => Made::Text(text),
        })
    }

    fn fast(&self, password: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
        let salt: Salt = match &self.salt {
            Some(text) => FastHash::parse_salt(text).context("a salt of fast_hash has 16 hexadecimal digits")?,
            None => random()?,
        };
        let mut digests: Vec<Digest> = self.digest.iter().copied().map(Into::into).collect();
        if digests.is_empty() {
            digests.push(Digest::Blake3);
        }
        let hash = FastHash::make(&digests, salt, password).context("a password has at most 255 bytes")?;
        Ok([("type", "fast_hash".to_owned())]
            .into_iter()
            .chain(hash.reveal())
            .collect())
    }
}

/// A token that was made. Its texts hold no quotes, and nothing else that YAML would have to escape.
enum Made {
    Map(Vec<(&'static str, String)>),
    Text(String),
}

impl Made {
    fn to_yaml(&self) -> String {
        match self {
            Self::Text(text) => format!("token: '{text}'"),
            Self::Map(entries) => {
                let lines = entries.iter().map(|(key, value)| match *key {
                    "type" => format!("\n  {key}: {value}"),
                    _ => format!("\n  {key}: '{value}'"),
                });
                format!("token:{}", lines.collect::<String>())
            }
        }
    }

    fn to_json(&self) -> Value {
        let token = match self {
            Self::Text(text) => json!(text),
            Self::Map(entries) => entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), json!(value)))
                .collect(),
        };
        json!({ "token": token })
    }
}

/// Makes a token and prints it.
pub(crate) fn run(options: &TokenOptions, as_json: bool) -> anyhow::Result<ExitCode> {
    let password = match &options.password {
        Some(password) => password.clone(),
        None => password::ask()?,
    };
    if password.is_empty() {
        bail!("the password is empty");
    }
    if password.len() > MAX_PASSWORD {
        bail!("a password has at most {MAX_PASSWORD} bytes");
    }
    let made = options.make(&password)?;
    if as_json {
        output::json(&made.to_json());
    } else {
        say!("{}", made.to_yaml());
    }
    Ok(ExitCode::SUCCESS)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("the system gives no random bytes: {e}"))?;
    Ok(bytes)
}

fn random_letters(length: usize) -> anyhow::Result<String> {
    // There are 64 letters, so each is as likely as any other.
    let letter = |byte: u8| char::from(SALT_LETTERS[usize::from(byte) % SALT_LETTERS.len()]);
    Ok(random::<16>()?.into_iter().take(length).map(letter).collect())
}
