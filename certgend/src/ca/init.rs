//! `certgend ca init`: makes a CA where the configuration says that it is.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueHint};
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SerialNumber};
use rustix::fs::{Uid, fchown};
use rustls_pki_types::PrivatePkcs8KeyDer;
use sluice_config::{Load, value::User};
use sluice_tls::config::PemSource;
use time::{Duration, OffsetDateTime};

use crate::config::Config;
use crate::plan::{random_serial, sha256};
use crate::record::hex;

/// The user that certgend runs as under systemd.
const SERVICE_USER: &str = "sluice-certgend";

/// The bits of an RSA key of a CA.
const RSA_BITS: u32 = 3072;

/// The longest common name (RFC 5280, ub-common-name).
const LONGEST_NAME: usize = 64;

#[derive(Debug, Parser)]
#[command(name = "certgend", bin_name = "certgend", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The CA that certificates are signed with
    #[command(subcommand)]
    Ca(CaCommand),
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Make a CA in the files that the configuration names, and print how to trust it; never overwrites one
    Init(Init),
}

#[derive(Debug, Args)]
struct Init {
    /// Configuration file, or a directory that holds main.yml
    #[arg(short = 'c', long = "config-file", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    config: PathBuf,

    /// Common name of the CA [default: Sluice CA of HOST]
    #[arg(long, value_name = "NAME", value_parser = common_name)]
    common_name: Option<String>,

    /// Days that it is valid
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,

    /// Make an RSA key, for clients that know no other
    #[arg(long)]
    rsa: bool,

    /// User that certgend runs as, who gets the key's file [default: sluice-certgend if there is one and root calls]
    #[arg(long, value_name = "USER", value_parser = user)]
    owner: Option<u32>,
}

fn common_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=LONGEST_NAME if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("a name has 1 to {LONGEST_NAME} bytes")),
    }
}

fn user(text: &str) -> Result<u32, String> {
    let uid = text.parse().ok().or_else(|| User::named(text).map(|user| user.0));
    uid.ok_or_else(|| "no user of this system has that uid or name".to_owned())
}

/// Does what is asked if the first argument is `ca`; `None` if a daemon is wanted.
pub(crate) fn command(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<OsString> = args.collect();
    if args.get(1).is_none_or(|first| first != "ca") {
        return None;
    }
    let init = match Cli::try_parse_from(args) {
        Ok(Cli {
            command: Command::Ca(CaCommand::Init(init)),
        }) => init,
        Err(error) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = error.print();
            return Some(if error.use_stderr() {
                64.into()
            } else {
                ExitCode::SUCCESS
            });
        }
    };
    let mut load = Load::open_certgen(&init.config);
    let config = Config::read(&mut load);
    if let Err(errors) = load.finish() {
        for error in errors.errors {
            complain(&error.to_string());
        }
        return Some(78.into());
    }
    Some(match run(&init, &config) {
        Ok(told) => match io::stdout().write_all(told.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            complain(&format!("certgend: {error:#}"));
            ExitCode::FAILURE
        }
    })
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}"); // without a standard error there is nobody to tell
}

/// Makes the CA; returns what to tell.
fn run(init: &Init, config: &Config) -> anyhow::Result<String> {
    let (cert_path, key_path) = paths(config)?;
    for path in [&cert_path, &key_path] {
        if fs::symlink_metadata(path).is_ok() {
            bail!("`{}` exists; a CA is never overwritten", path.display());
        }
    }
    let made = make(init)?;
    let owner = match init.owner {
        None if rustix::process::geteuid().is_root() => User::named(SERVICE_USER).map(|user| user.0),
        owner => owner,
    };
    let key_file = write_new(&key_path, 0o600, made.key_pem.as_bytes(), owner)?;
    if let Err(error) = write_new(&cert_path, 0o644, made.cert_pem.as_bytes(), None) {
        drop(key_file);
        let _ = fs::remove_file(&key_path); // of no use without the certificate; it was made just now
        return Err(error);
    }
    Ok(told(&made, &cert_path, &key_path))
}

/// Where the configuration says that certificate and key are.
fn paths(config: &Config) -> anyhow::Result<(PathBuf, PathBuf)> {
    let Some(backend) = &config.own.backend else {
        bail!(
            "the configuration names no CA; add\n\n\
             certgend:\n  backend:\n    ca_certificate: ca/ca.crt\n    ca_private_key: ca/ca.key\n"
        );
    };
    let path = |source: Option<&PemSource>, key: &str| match source {
        Some(PemSource::File(path)) => Ok(config.base().join(path)),
        _ => bail!("`{}` is no file that could be made", config.path_of(key)),
    };
    let certificates = &backend.ca_certificate.0;
    if certificates.len() > 1 {
        bail!(
            "`{}` is a list: what is made here is a single certificate",
            config.path_of("ca_certificate")
        );
    }
    let cert = path(certificates.first(), "ca_certificate")?;
    let key = path(Some(&backend.ca_private_key), "ca_private_key")?;
    if cert == key {
        bail!("certificate and key are one file: clients get the one, nobody may see the other");
    }
    Ok((cert, key))
}

struct MadeCa {
    name: String,
    cert_pem: String,
    key_pem: String,
    fingerprint: [u8; 32],
    not_after: OffsetDateTime,
}

fn make(init: &Init) -> anyhow::Result<MadeCa> {
    let key = match init.rsa {
        false => KeyPair::generate()?,
        true => {
            let key = PKey::from_rsa(Rsa::generate(RSA_BITS)?)?.private_key_to_pkcs8()?;
            KeyPair::try_from(&PrivatePkcs8KeyDer::from(key))?
        }
    };
    let name = init.common_name.clone().unwrap_or_else(default_name);
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(init.days.into());
    // Nothing it signs may sign in turn.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = params.self_signed(&key)?;
    Ok(MadeCa {
        name,
        cert_pem: cert.pem(),
        key_pem: key.serialize_pem(),
        fingerprint: sha256(cert.der()),
        not_after: params.not_after,
    })
}

fn default_name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match common_name(&format!("Sluice CA of {}", host.trim())) {
        Ok(name) if !host.trim().is_empty() => name,
        _ => "Sluice CA".to_owned(),
    }
}

/// Writes a file that must not be there yet; folders above it are made.
fn write_new(path: &Path, mode: u32, content: &[u8], owner: Option<u32>) -> anyhow::Result<File> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        let filled = fill(&mut file, content, owner);
        if filled.is_err() {
            let _ = fs::remove_file(path); // a half of it is of no use
        }
        filled.map(|()| file)
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

fn fill(file: &mut File, content: &[u8], owner: Option<u32>) -> io::Result<()> {
    file.write_all(content)?;
    if let Some(uid) = owner {
        fchown(&*file, Some(Uid::from_raw(uid)), None)?;
    }
    file.sync_all()
}

fn told(made: &MadeCa, cert: &Path, key: &Path) -> String {
    let fingerprint: Vec<String> = made.fingerprint.iter().map(|byte| hex(&[*byte])).collect();
    let (cert, key, fingerprint) = (cert.display(), key.display(), fingerprint.join(":"));
    let mut text = String::new();
    let _ = write!(
        text,
        "The CA is made.

  subject      CN = {name}
  valid until  {until}
  SHA-256      {fingerprint}
  certificate  {cert}
  private key  {key} (certgend alone may read it)

A running certgend signs with it after `sluicectl certgend reload`.

Whoever trusts this CA believes every certificate that certgend makes. To trust it:

  curl             curl --cacert {cert} …
  Debian, Ubuntu   cp {cert} /usr/local/share/ca-certificates/sluice.crt && update-ca-certificates
  Fedora, RHEL     trust anchor {cert}
  Chromium         certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n sluice -i {cert}
  Firefox          Settings, Certificates, Authorities, Import
  macOS            security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {cert}
  Windows          certutil -addstore Root {cert}
  Python, Node.js  REQUESTS_CA_BUNDLE={cert}  NODE_EXTRA_CA_CERTS={cert}
",
        name = made.name,
        until = made.not_after.date(),
    ); // a string takes everything
    text
}
