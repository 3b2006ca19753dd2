//! Compiles every `kernels/*.cu` and `kernels/emu/faulty/*.cu` as C++, with a table of their kernels.

#[path = "src/digest.rs"]
#[allow(unreachable_pub)] // shared with the library
mod digest;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Wrong twins: source, a text of it, and what stands there instead. Their kernels are called `twin_<n>_<kernel>`, and
/// the suite of the kernel must reject each.
const TWINS: &[(&str, &str, &str)] = &[
    ("whiten", "__syncthreads(); // this tile is filled", ""),
    (
        "whiten",
        "__syncthreads(); // the last tile has been read",
        "",
    ),
    (
        "whiten",
        "__syncthreads(); // this tile is filled",
        "if (is_inside) __syncthreads();",
    ),
    ("whiten", "if (!is_inside) return;", ""),
    (
        "whiten",
        "(size_t)(row0 + r) * n_in + k0 + k]",
        "(size_t)(k0 + k) * n_in + row0 + r]",
    ),
    (
        "whiten",
        "(size_t)(row0 + r) * n_in + k0 + k]",
        "(size_t)(row0 + r) * n_in + k]",
    ),
    ("whiten", "is_even = n % 2 == 0", "is_even = true"),
    ("combine", "c_conj_fma(first(s)", "c_fma(first(s)"),
    ("combine", "c_conj_fma(second(s)", "c_fma(second(s)"),
    ("combine", "if (at >= n) return;", ""),
    ("combine", "sqrtf(power_b)", "power_b"),
    ("combine", "sqrtf(a)", "a"),
    (
        "grappa_unmix",
        "(fold0 + f) * n_rows + row;",
        "row * n_folds + fold0 + f;",
    ),
    ("grappa_unmix", "if (f >= some) break;", ""),
    ("grappa_unmix", "both(c_mul(t, a[f])", "both(a[f]"),
    (
        "grappa_unmix",
        "const int row = (int)(i / (unsigned)n_pairs)",
        "const int row = (int)(i / (unsigned)n_x)",
    ),
    (
        "sense_unfold",
        "b[i] = c_conj_fma(s[i], a, b[i])",
        "b[i] = c_fma(s[i], a, b[i])",
    ),
    (
        "sense_unfold",
        "normal.lower[below(i, j)] = c_conj_fma(s[i], s[j]",
        "normal.lower[below(i, j)] = c_conj_fma(s[j], s[i]",
    ),
    ("sense_unfold", "m.diagonal[j] + lambda", "m.diagonal[j]"),
    ("sense_unfold", "if (!g.is_inside) return;", ""),
    ("sense_unfold", "c_mul(phase[place[i]], b[i])", "b[i]"),
    (
        "sense_unfold",
        "const float scale = sqrtf((float)R)",
        "const float scale = 1.0f",
    ),
    (
        "sense_unfold",
        "c_conj_fma(factor.lower[below(k, i)]",
        "c_fma(factor.lower[below(k, i)]",
    ),
    (
        "sense_unfold",
        "fmaf(2.0f * v[i].x, w.x, fmaf(2.0f * v[i].y",
        "fmaf(2.0f * v[i].x, w.x, fmaf(-2.0f * v[i].y",
    ),
    (
        "sense_unfold",
        "sqrtf((float)R * variance)",
        "sqrtf(variance)",
    ),
    (
        "sense_unfold",
        "variance * normal.diagonal[j]",
        "variance / factor.diagonal[j]",
    ),
    (
        "fft",
        "in[from + line * n + to_centre(at, centre, n)]",
        "in[from + line * n + at]",
    ),
    ("fft", "v.x * scale, v.y * scale", "v.x, v.y"),
    ("espirit", "__syncthreads(); // the matrices are here", ""),
    ("espirit", "__syncthreads(); // all have read", ""),
    ("espirit", "fmaf(d.x, own[k].y, next[k].y)", "next[k].y"),
    (
        "espirit",
        "next[k] = c_conj_fma(matrix",
        "next[k] = c_fma(matrix",
    ),
    (
        "espirit",
        "projection = c_conj_fma(gauge[i]",
        "projection = c_fma(gauge[i]",
    ),
    (
        "espirit",
        "eigenvalue > crop ? 1.0f",
        "eigenvalue > 0.0f ? 1.0f",
    ),
    ("espirit_space", "p1 + y) * d0", "p1) * d0"),
    (
        "espirit_space",
        "__syncthreads(); // the tiles are here",
        "//",
    ),
    ("espirit_space", "half = 1 - half;", ""),
    (
        "espirit_space",
        "c_conj_fma(second(u), first(v)",
        "c_fma(second(u), first(v)",
    ),
    ("espirit_space", "make_float2(v.x, -v.y)", "v"),
    ("espirit_space", "row < k && at < n", "at < n"),
    ("espirit_space", "v.x + beta, 0.0f", "v.x, 0.0f"),
    ("espirit_space", "of_dots += dots[i]", "of_dots += 1.0"),
    (
        "espirit_space",
        "j * size + at, column = i * size",
        "i * size + at, column = j * size",
    ),
    ("espirit_space", "row == column ? 1.0f : 0.0f", "0.0f"),
    ("grappa_beside", "if (own >= 0) sum", "if (own > 0) sum"),
    (
        "grappa_beside",
        "n_coils + coil) * n_x + x;\n        const",
        "n_coils + coil) * n_x;\n        const",
    ),
    ("grappa_beside", "if (row >= n_rows) continue;", ""),
    (
        "grappa_beside",
        "frequency - shifts[at] + n_y",
        "frequency - shifts[at]",
    ),
    ("grappa_beside", "if (i >= n) return;", ""),
    ("lines", "__syncthreads(); // the tile is here", ""),
    ("lines", "n_x + column[at]", "n_x + at"),
    ("lines", "fmaf(scale[x], v.y, sum.y)", "v.y + sum.y"),
    ("lines", "if (line >= 0) v", "v"),
    ("lines", "c_mul(factor[place], in[", "c_mul(factor[0], in["),
    (
        "lines",
        "sum += parts[i * 32 + low]",
        "sum += parts[i * 32]",
    ),
    (
        "lines",
        "max(1.0f, (float)sqrt(mean / e))",
        "(float)sqrt(mean / e)",
    ),
    (
        "sense_cg",
        "__syncthreads(); // the coil's image is here",
        "",
    ),
    (
        "sense_cg",
        "__syncthreads(); // the coil's product is here",
        "",
    ),
    (
        "sense_cg",
        "__syncthreads(); // the spectrum is weighted",
        "",
    ),
    ("sense_cg", "__syncthreads(); // all have read", ""),
    (
        "sense_cg",
        "product[i] = c_conj_fma(s, image",
        "product[i] = c_fma(s, image",
    ),
    (
        "sense_cg",
        "const float w = weights[to_centre(place, centre, n)] / (float)n",
        "const float w = 1.0f / (float)n",
    ),
    (
        "sense_cg",
        "const int column = threadIdx.x % count,",
        "const int column = threadIdx.x / (FFT_BLOCK / count),",
    ),
    (
        "sense_cg",
        "const bool is_inside = x < n_x",
        "const bool is_inside = true",
    ),
    (
        "sense_planes",
        "sum[i] = c_conj_fma(csm",
        "sum[i] = c_fma(csm",
    ),
    (
        "sense_planes",
        "__syncthreads(); // the spectrum is weighted",
        "",
    ),
    (
        "sense_planes",
        "half = 1 - half; // the next coil",
        "// the next coil",
    ),
    ("sense_planes", "__syncthreads(); // the rows are here", ""),
    ("sense_planes", "fmaf(lambda, v.x, sum[i].x)", "sum[i].x"),
    ("sense_planes", "min(count, n2 - row)", "count"),
    (
        "sense_planes",
        "weights[(size_t)at * n1 + x + line]",
        "weights[(size_t)at * n1 + line]",
    ),
    (
        "sense_planes",
        "is_alive ? (float)(next / now) : 0.0f",
        "0.0f",
    ),
];

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let kernels = here.parent().ok_or("no folder above kernels/emu")?;
    let shim = here.join("shim");
    // In the order of `device::cuda::KERNELS`.
    let header = |name: &str| std::fs::read_to_string(kernels.join(name));
    let headers = [header("common.cuh")?, header("fft.cuh")?];
    let headers = headers.each_ref().map(String::as_str);
    for path in [
        kernels,
        &shim,
        &here.join("faulty"),
        &here.join("src/digest.rs"),
    ] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .debug(false)
        .warnings(true)
        .extra_warnings(true)
        .include(&shim)
        .include(kernels)
        // No contraction beyond the fmaf that the kernels spell out: the same bits on every machine.
        .flag("-ffp-contract=off")
        .flag_if_supported("-Wno-unknown-pragmas");
    let mut twins = build.clone();
    twins.warnings(false).extra_warnings(false).opt_level(1);
    build.file(shim.join("emu.cpp"));
    let mut units = Vec::new();
    for folder in [kernels.to_path_buf(), here.join("faulty")] {
        for path in sources(&folder)? {
            let stem = path.file_stem().and_then(|s| s.to_str());
            let stem = stem.ok_or("a source whose name is not UTF-8")?.to_owned();
            units.push((stem, path, String::new()));
        }
    }
    for (i, (source, from, to)) in TWINS.iter().enumerate() {
        let text = std::fs::read_to_string(kernels.join(format!("{source}.cu")))?;
        if !text.contains(from) {
            return Err(format!("twin {i}: {source}.cu has no {from:?}").into());
        }
        // Of a family of kernels one is enough.
        let text: String = text
            .replace(from, to)
            .split_inclusive('\n')
            .filter(|l| !l.starts_with("KERNEL_") || l.contains("_r4,"))
            .collect();
        let path = out.join(format!("twin_{i}.cu"));
        write_if_new(&path, &text)?;
        units.push((format!("twin_{i}"), path, format!("twin_{i}_")));
    }
    let mut table = String::new();
    let mut externs = String::new();
    for (stem, path, prefix) in units {
        let source = std::fs::read_to_string(&path)?;
        let digest = digest::digest(&source, &headers);
        let names = kernel_names(&source);
        if names.is_empty() {
            return Err(format!(
                "{}: no `KERNEL name(` at the start of a line",
                path.display()
            )
            .into());
        }
        let mut text = format!(
            "#include \"emu.h\"\n#include \"common.cuh\"\nnamespace cu_{stem} {{\n#include \"{}\"\n}}\n",
            path.display()
        );
        for name in names {
            let threads = threads(&source, &name).unwrap_or("0".into());
            let full = format!("{prefix}{name}");
            writeln!(
                text,
                "namespace cu_{stem} {{ static constexpr unsigned long long threads_of_{name} = {threads}; }}\n\
                 extern const emu::Kernel of_{full};\n\
                 const emu::Kernel of_{full} = {{\"{full}\", \"{stem}.cu\", emu::Of<&cu_{stem}::{name}>::params, \
                 emu::Of<&cu_{stem}::{name}>::call, {digest}ull, cu_{stem}::threads_of_{name}}};"
            )?;
            writeln!(externs, "extern const emu::Kernel of_{full};")?;
            writeln!(table, "    of_{full},")?;
        }
        let wrapper = out.join(format!("{stem}.cpp"));
        write_if_new(&wrapper, &text)?;
        if prefix.is_empty() {
            build.file(wrapper);
        } else {
            twins.file(wrapper);
        }
    }
    let text = format!(
        "#include \"emu.h\"\n{externs}namespace emu {{\nstatic const Kernel table[] = {{\n{table}}};\n\
         extern const Kernel *const all_kernels;\nextern const size_t n_kernels;\n\
         const Kernel *const all_kernels = table;\nconst size_t n_kernels = sizeof table / sizeof *table;\n}}\n"
    );
    let path = out.join("table.cpp");
    write_if_new(&path, &text)?;
    build.file(path);
    build.try_compile("cauda_kernels")?;
    twins.try_compile("cauda_kernel_twins")?;
    Ok(())
}

fn sources(folder: &Path) -> Fallible<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "cu") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Names in lines that begin with `KERNEL name(`, `KERNEL THREADS(n) name(`, or with a macro that makes one kernel,
/// `KERNEL_...(name, ...)`.
fn kernel_names(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("KERNEL")?;
            let rest = match rest.strip_prefix(' ') {
                Some(rest) if rest.starts_with("THREADS") => rest.split_once(") ")?.1,
                Some(rest) => rest,
                None => rest.split_once('(')?.1,
            };
            let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            Some(rest.chars().take_while(word).collect::<String>())
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// What `THREADS(...)` of a kernel says, also of one that a macro makes: C++ of the source.
fn threads(text: &str, name: &str) -> Option<String> {
    let is_it = |l: &&str| l.contains(&format!(" {name}(")) || l.contains(&format!("({name},"));
    let mut line = text
        .lines()
        .filter(|l| l.starts_with("KERNEL"))
        .find(is_it)?;
    let inside = |s: &str| Some(s.split_once('(')?.1.split_once(')')?.0.to_owned());
    let mut values: Vec<(String, String)> = Vec::new();
    if let Some((maker, _)) = line
        .split_once('(')
        .filter(|(m, _)| m.starts_with("KERNEL_"))
    {
        let body = &text[text.find(&format!("#define {maker}("))?..];
        let list = |s: &str| -> Option<Vec<String>> {
            Some(inside(s)?.split(',').map(|w| w.trim().to_owned()).collect())
        };
        values = list(body)?.into_iter().zip(list(line)?).collect();
        line = body;
    }
    let expression = inside(&line[line.find("THREADS")?..])?;
    let value = values.into_iter().find(|(key, _)| *key == expression);
    Some(value.map_or(expression, |(_, v)| v))
}

fn write_if_new(path: &Path, text: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::write(path, text)
}
