/**
 * Links to notebooks: JupyterLab opens them as a tab, Notebook as a page.
 */

/** What Jupyter says to its pages of itself. */
function jupyter() {
  return JSON.parse(document.getElementById("jupyter-config-data")?.textContent || "{}");
}

/** A file's path below the folder that Jupyter serves, or null where it does not serve it. */
function servedPath(path, served) {
  const root = served?.replace(/\/+$/, "");
  if (root === undefined || !path.startsWith(`${root}/`)) return null;
  const rest = path.slice(root.length + 1);
  return rest.split("/").some((part) => part.startsWith(".")) ? null : rest; // it hides those
}

/** The attributes of a link that opens a notebook, or null where Jupyter does not serve it. */
function opening(path, served) {
  const place = servedPath(path, served);
  if (place === null) return null;
  const { baseUrl = "/", appName } = jupyter();
  const page = appName === "Jupyter Notebook" ? "notebooks/" : "lab/tree/";
  return {
    href: `${baseUrl}${page}${place.split("/").map(encodeURIComponent).join("/")}`,
    "data-commandlinker-command": "docmanager:open",
    "data-commandlinker-args": JSON.stringify({ path: place }),
  };
}
