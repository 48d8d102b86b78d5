//! Asks for a password.

use std::io::{self, BufRead, IsTerminal, Read, StdinLock, Write};

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// The longest line that is taken; whether a password may be so long is somebody else's to say.
const MAX_LINE: u64 = 4096;

/// Asks the terminal twice, or takes the first line of what standard input is else.
pub(crate) fn ask() -> anyhow::Result<String> {
    let mut stdin = io::stdin().lock();
    if !stdin.is_terminal() {
        return first_line(stdin);
    }
    let password = prompt(&mut stdin, "Password: ")?;
    if prompt(&mut stdin, "The same again: ")? != password {
        bail!("the two passwords differ");
    }
    Ok(password)
}

fn first_line(stdin: StdinLock<'_>) -> anyhow::Result<String> {
    let mut line = Vec::new();
    stdin
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)
        .context("cannot read the password")?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    text(line.to_vec())
}

fn prompt(stdin: &mut StdinLock<'_>, text_before: &str) -> anyhow::Result<String> {
    eprint!("{text_before}");
    io::stderr().flush().context("cannot ask for the password")?;
    let line = {
        let _silent = Silent::begin().context("cannot stop the terminal from showing the password")?;
        typed(stdin)
    };
    eprintln!();
    text(line?)
}

/// The keys up to Enter, with the terminal's usual ones for taking back.
fn typed(stdin: &mut StdinLock<'_>) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    for byte in stdin.bytes() {
        match byte.context("cannot read the password")? {
            b'\n' | b'\r' => return Ok(line),
            0x03 => bail!("interrupted"),
            0x04 if line.is_empty() => break,
            0x08 | 0x7f => {
                // All bytes of one letter.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            0x15 => line.clear(),
            byte if byte < b' ' => {}
            byte => line.push(byte),
        }
        if line.len() as u64 > MAX_LINE {
            bail!("the line is too long");
        }
    }
    bail!("there is no password")
}

fn text(line: Vec<u8>) -> anyhow::Result<String> {
    String::from_utf8(line).ok().context("the password is not UTF-8")
}

/// Until it is dropped the terminal shows nothing that is typed, and makes no signals of keys: one would end the process
/// and leave the terminal like this.
struct Silent(Termios);

impl Silent {
    fn begin() -> rustix::io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut now = before.clone();
        now.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        now.special_codes[SpecialCodeIndex::VMIN] = 1;
        now.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before the prompt is not meant for it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &now)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing more can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
