//! The built program: runs of it, and servers.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;

/// Where it is.
#[derive(Clone, Debug)]
pub(crate) struct Program(PathBuf);

impl Program {
    /// What was named, or what is beside this program.
    pub(crate) fn find(named: Option<PathBuf>) -> Result<Self> {
        let beside = std::env::current_exe()?;
        let beside = beside.parent().and_then(Path::parent);
        let beside = beside.ok_or("this program is in no folder")?;
        Ok(Self(named.unwrap_or_else(|| beside.join("foresail"))))
    }

    /// Runs it; what it prints goes to a file. A run whose client was disturbed counts, and says so there.
    pub(crate) fn run(&self, arguments: &[&str], printed: &Path) -> Result<()> {
        eprintln!("foresail {}", arguments.join(" "));
        let ended = Command::new(&self.0)
            .args(arguments)
            .stdout(File::create(printed)?)
            .stderr(Stdio::piped())
            .output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        fs::write(printed.with_extension("err"), &said)?;
        match ended.status.code() {
            Some(0 | 3) => Ok(()),
            Some(4) => {
                eprintln!("degraded, as {} says", printed.display());
                Ok(())
            }
            _ => Err(format!("foresail {}: {said}", arguments.join(" ")).into()),
        }
    }

    /// Runs it with the name of a file as its last argument.
    pub(crate) fn run_to_file(
        &self,
        arguments: &[&str],
        file: &Path,
        printed: &Path,
    ) -> Result<()> {
        let file = file.to_str().ok_or("the folder's name is no text")?;
        self.run(&[arguments, &[file]].concat(), printed)
    }

    /// A server that is ready.
    pub(crate) fn serve(&self, arguments: &[String]) -> Result<Server> {
        let mut process = Command::new(&self.0)
            .arg("serve")
            .args(arguments)
            .args(["--port=0", "--access-log=none", "--quiet"])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take();
        // Whatever happens now, it ends with this.
        let mut server = Server {
            process,
            address: String::new(),
        };
        let mut line = String::new();
        BufReader::new(stdout.ok_or("the server has no standard output")?).read_line(&mut line)?;
        let address = line.strip_prefix("ready: http://");
        let address = address.and_then(|rest| rest.split("/v1 ").next());
        server.address = address.ok_or("the server did not start")?.to_owned();
        Ok(server)
    }
}

/// A server that ends with this value.
pub(crate) struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A figure of `/metrics`, by its name.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(&self.address)?;
        let host = &self.address;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let is_it = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        };
        let line = answer.lines().find(is_it);
        let value = line.and_then(|line| line.rsplit(' ').next());
        Ok(value
            .ok_or_else(|| format!("the server has no metric {name}"))?
            .parse()?)
    }
}
