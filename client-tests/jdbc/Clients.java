import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.postgresql.PGConnection;

/** What pgjdbc does at the server; PGPORT says where it listens. */
public class Clients {
    private static final String URL = "jdbc:postgresql://127.0.0.1:" + System.getenv("PGPORT") + "/millstream";

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = connect()) {
            tables(connection);
            prepared(connection);
            batches(connection);
            cursors(connection);
            metadata(connection);
            copies(connection);
            cancels(connection);
        }
        System.out.println("pgjdbc: as expected");
    }

    private static Connection connect() throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "tester");
        return DriverManager.getConnection(URL, properties);
    }

    private static void expect(Object found, Object expected) {
        if (!String.valueOf(found).equals(String.valueOf(expected))) {
            throw new AssertionError(found + " is not " + expected);
        }
    }

    private static void tables(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE orders (id INT PRIMARY KEY, item TEXT NOT NULL, price NUMERIC(10, 2),"
                + " at TIMESTAMPTZ(6), day DATE, flags BOOLEAN, data BYTEA, list INT[])");
            statement.execute("CREATE MATERIALIZED VIEW by_item AS"
                + " SELECT item, count(*) AS n, sum(price) AS total FROM orders GROUP BY item");
            expect(statement.executeUpdate("INSERT INTO orders (id, item, price) VALUES (1, 'tea', 2.50), (2, 'tea', 3)"), 2);
        }
    }

    private static void prepared(Connection connection) throws SQLException {
        String insert = "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(insert)) {
            statement.setInt(1, 3);
            statement.setString(2, "milk");
            statement.setBigDecimal(3, new java.math.BigDecimal("1.25"));
            statement.setTimestamp(4, Timestamp.from(java.time.Instant.parse("2024-01-02T03:04:05.678Z")));
            statement.setDate(5, Date.valueOf("2024-02-29"));
            statement.setBoolean(6, true);
            statement.setBytes(7, new byte[] {0, (byte) 255});
            statement.setArray(8, connection.createArrayOf("int4", new Integer[] {1, null, 3}));
            expect(statement.executeUpdate(), 1);
        }
        // More than five times, so that the driver keeps it prepared on the server and goes over to binary.
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM orders WHERE id = ? AND item = ?")) {
            for (int round = 0; round < 8; round++) {
                statement.setInt(1, 3);
                statement.setString(2, "milk");
                try (ResultSet rows = statement.executeQuery()) {
                    expect(rows.next(), true);
                    expect(rows.getBigDecimal("price"), "1.25");
                    expect(rows.getTimestamp("at").toInstant(), "2024-01-02T03:04:05.678Z");
                    expect(rows.getDate("day"), "2024-02-29");
                    expect(rows.getBoolean("flags"), true);
                    expect(rows.getBytes("data").length, 2);
                    Object[] list = (Object[]) rows.getArray("list").getArray();
                    expect(java.util.Arrays.toString(list), "[1, null, 3]");
                    expect(rows.next(), false);
                }
            }
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT n, total FROM by_item WHERE item = ?")) {
            expect(statement.getParameterMetaData().getParameterCount(), 1);
            expect(statement.getMetaData().getColumnTypeName(1), "int8");
            statement.setString(1, "tea");
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                expect(rows.getLong(1) + " " + rows.getBigDecimal(2), "2 5.50");
            }
        }
    }

    private static void batches(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO orders (id, item) VALUES (?, ?)")) {
            for (int id = 100; id < 600; id++) {
                statement.setInt(1, id);
                statement.setString(2, "item " + id % 7);
                statement.addBatch();
            }
            expect(statement.executeBatch().length, 500);
        }
        connection.commit();
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("DELETE FROM orders");
            connection.rollback();
            try (ResultSet rows = statement.executeQuery("SELECT count(*) FROM orders")) {
                rows.next();
                expect(rows.getLong(1), 503);
            }
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    private static void cursors(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM orders ORDER BY id")) {
            statement.setFetchSize(100);
            int count = 0;
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    count++;
                }
            }
            expect(count, 503);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    private static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) {
            values.add(rows.getString(name));
        }
        return values;
    }

    private static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData metadata = connection.getMetaData();
        expect(metadata.getDatabaseProductName(), "PostgreSQL");
        List<String> tables = column(metadata.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME");
        expect(tables.contains("orders"), true);
        tables = column(metadata.getTables(null, null, "%", null), "TABLE_NAME");
        expect(tables.contains("by_item"), true);
        ResultSet columns = metadata.getColumns(null, "public", "orders", "%");
        expect(column(columns, "COLUMN_NAME"), "[id, item, price, at, day, flags, data, list]");
        columns = metadata.getColumns(null, "public", "orders", "price");
        columns.next();
        expect(columns.getString("TYPE_NAME") + " " + columns.getInt("COLUMN_SIZE") + " " + columns.getInt("DECIMAL_DIGITS"),
            "numeric 10 2");
        expect(column(metadata.getPrimaryKeys(null, "public", "orders"), "COLUMN_NAME"), "[id]");
        expect(column(metadata.getSchemas(), "TABLE_SCHEM").contains("public"), true);
        expect(column(metadata.getTypeInfo(), "TYPE_NAME").contains("int4"), true);
        expect(column(metadata.getCatalogs(), "TABLE_CAT"), "[millstream]");
        metadata.getIndexInfo(null, "public", "orders", false, false).close();
        metadata.getImportedKeys(null, "public", "orders").close();
        metadata.getExportedKeys(null, "public", "orders").close();
        metadata.getProcedures(null, null, "%").close();
        metadata.getFunctions(null, null, "%").close();
    }

    private static void copies(Connection connection) throws Exception {
        var copies = connection.unwrap(PGConnection.class).getCopyAPI();
        expect(copies.copyIn("COPY orders (id, item) FROM STDIN (FORMAT csv)", new StringReader("9001,a\n9002,\"b,c\"\n")), 2);
        StringWriter out = new StringWriter();
        copies.copyOut("COPY (SELECT id, item FROM orders WHERE id > 9000 ORDER BY id) TO STDOUT", out);
        expect(out, "9001\ta\n9002\tb,c\n");
    }

    private static void cancels(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            try {
                statement.executeQuery(
                    "SELECT count(*) FROM generate_series(1, 100000) AS a(x), generate_series(1, 1000000) AS b(y)");
                throw new AssertionError("it came to its end");
            } catch (SQLException error) {
                expect(error.getSQLState(), "57014");
            }
        }
        try (Statement statement = connection.createStatement()) {
            statement.execute("SELECT nowhere FROM orders");
            throw new AssertionError("nowhere is somewhere");
        } catch (SQLException error) {
            expect(error.getSQLState(), "42703");
        }
    }
}
