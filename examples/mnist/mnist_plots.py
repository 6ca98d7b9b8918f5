"""The pictures of the notebooks, and how they show source code."""

import inspect
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display

plt.rcParams.update(
    {
        "figure.dpi": 80,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
    }
)


def show_source(*functions):
    """The source code of functions of the helper modules."""
    for function in functions:
        text = inspect.getsource(function)
        data = {"text/markdown": f"```python\n{text}```", "text/plain": text}
        display(data, raw=True)


def show_table(columns, rows):
    """A table; nothing but HTML, so that no library is needed for it."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def plot_digits(images, titles, columns=10):
    """Images in rows, each with a title."""
    rows = max(1, -(-len(images) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(0.8 * columns, 1.1 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image[..., 0], cmap="gray_r")
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    plt.show()


def plot_shares(counts):
    """How many images of each digit the workers have. `counts`: ten numbers by worker."""
    figure, axis = plt.subplots(figsize=(7, 2.6))
    width = 0.8 / len(counts)
    for place, (name, numbers) in enumerate(counts.items()):
        axis.bar(np.arange(10) + place * width, numbers, width, label=name)
    axis.set_xticks(np.arange(10) + 0.4 - width / 2, range(10))
    axis.set(xlabel="digit", ylabel="images")
    axis.legend()
    figure.tight_layout()
    plt.show()


def plot_curves(curves, label, scale="linear", marks=()):
    """Curves over the steps. `curves`: [(step, value), ...] by name; `marks`: (step, text)."""
    figure, axis = plt.subplots(figsize=(7, 2.8))
    for name, points in curves.items():
        marker = "o" if len(points) < 30 else None
        axis.plot(*zip(*points, strict=True), label=name, marker=marker, linewidth=1.5)
    for step, text in marks:
        axis.axvline(step, color="gray", linestyle="--", linewidth=1)
        axis.annotate(text, (step, 0.92), xycoords=("data", "axes fraction"), fontsize=9)
    axis.set(xlabel="step", ylabel=label, yscale=scale)
    axis.legend()
    figure.tight_layout()
    plt.show()


def plot_confusion(labels, predicted):
    """How often which digit was taken for which."""
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (labels, predicted), 1)
    figure, axis = plt.subplots(figsize=(4, 4))
    axis.imshow(matrix, cmap="Blues")
    axis.grid(visible=False)
    for row, column in np.argwhere(matrix):
        color = "white" if matrix[row, column] > matrix.max() / 2 else "black"
        axis.text(column, row, matrix[row, column], ha="center", va="center", color=color)
    axis.set(xlabel="predicted", ylabel="is", xticks=range(10), yticks=range(10))
    figure.tight_layout()
    plt.show()
